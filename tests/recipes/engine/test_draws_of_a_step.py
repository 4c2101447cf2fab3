"""`module.generator`: a stream for each owner, of a part or of a step as a whole; a batch that is repeated is drawn once."""

from functools import partial

import lightning as L
import pytest
import torch
from torch import nn

from plugins.augmentation.crop import RandomCrop
from plugins.augmentation.mixup import Mixup
from plugins.base import Plugin, Stage
from plugins.wrapper.sam import SAM
from recipes.data.loaders import StepLoader
from recipes.data.split import Split
from recipes.engine.module import RecipeModule
from recipes.engine.randomness import Draws

CPU = torch.device("cpu")


def drawn(draws, owner="a", **named):
    return torch.rand(4, generator=draws.generator(owner, CPU, **named))


def test_draws_of_a_step_do_not_depend_on_part_and_rank():
    draws, of_step, of_part = Draws(0), [], []
    for step in range(3):
        for part, rank in ((0, 0), (1, 0), (0, 1), (1, 1)):
            draws.set_clock(step, part, rank, 2)
            of_step.append(drawn(draws, same_on_ranks=True))
            of_part.append(drawn(draws))
        draws.set_clock_of_step(step)
        assert torch.equal(drawn(draws), of_step[-1]) and torch.equal(drawn(draws, same_on_ranks=True), of_step[-1])
    assert len(torch.stack(of_step).unique(dim=0)) == 3
    assert len(torch.cat([torch.stack(of_part), torch.stack(of_step)]).unique(dim=0)) == 12 + 3
    assert not torch.equal(drawn(draws, "a", same_on_ranks=True), drawn(draws, "b", same_on_ranks=True))
    assert not torch.equal(drawn(draws, same_on_ranks=True), drawn(Draws(1), same_on_ranks=True))


def test_a_generator_in_use_goes_on_while_another_one_draws():
    draws = Draws(0)
    draws.set_clock(3, 1, 0, 1)
    one = draws.generator("a", CPU)
    first = torch.rand(2, generator=one)
    drawn(draws, same_on_ranks=True)
    both = torch.cat([first, torch.rand(2, generator=one)])
    assert torch.equal(both, torch.rand(4, generator=draws.generator("a", CPU)))


class Watch(Plugin):
    """Remembers what is drawn in each method, and what becomes of a batch."""

    stage, group, option = Stage.NOISE, "test", "watch"

    def __init__(self, repeats=1):
        self.repeats, self.seen, self.batches = repeats, {}, []

    def look(self, where, module):
        row = [torch.rand(2, generator=module.generator("watch", device)) for device in (None, "cpu", CPU)]
        assert torch.equal(row[0], row[1]) and torch.equal(row[0], row[2])
        row.append(torch.rand(2, generator=module.generator("watch", same_on_ranks=True)))
        self.seen.setdefault(where, []).append((row[0].tolist(), row[3].tolist()))

    def transform_batch(self, batch, module):
        self.look("batch", module)
        self.batches.append(batch.x.clone())
        return batch

    def penalty(self, module, batch, outputs):
        self.look("pass", module)

    def transform_gradient(self, module, parameters):
        self.look("gradient", module)

    def after_step(self, module, optimizer):
        self.look("after", module)


def train(*plugins, parts=1, steps=6):
    data = Split(torch.rand(24, 1, 8, 8), {"": torch.randint(3, (24,))})
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1), parts=parts)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(accelerator="cpu", max_steps=steps, callbacks=list(plugins), **quiet).fit(
        module, StepLoader(data, 8 // parts, 0, parts)
    )
    return data


def test_in_a_step_all_parts_and_what_follows_them_draw_alike():
    watch = Watch()
    train(watch, SAM(0.05), parts=2, steps=3)
    for step in range(3):
        batch, passes = watch.seen["batch"][2 * step :][:2], watch.seen["pass"][4 * step :][:4]
        (of_step,) = {tuple(row[1]) for row in (*batch, *passes)}
        assert tuple(watch.seen["gradient"][step][0]) == tuple(watch.seen["after"][step][0]) == of_step
        assert batch[0] != batch[1] and batch == passes[:2] == passes[2:]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_batch_that_is_repeated_is_drawn_once(parts):
    """What is done to it in between, such as dropout, is drawn in each step."""
    watch, others = Watch(repeats=3), (RandomCrop(2), Mixup(1.0))
    data = train(watch, *others, parts=parts)
    batches = [torch.cat(watch.batches[step * parts :][:parts]) for step in range(6)]
    for step, batch in enumerate(batches):
        assert torch.equal(batch, batches[step - step % 3])
    assert not torch.equal(batches[0], batches[3]) and not any((batches[0][0] == image).all() for image in data.x)
    assert (
        len({str(row) for row in watch.seen["batch"]}) == 2 * parts
        and len({str(row) for row in watch.seen["pass"]}) == 6 * parts
    )
