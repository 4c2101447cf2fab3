from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.augmentation.alternating_flip import AlternatingFlip, coins
from plugins.base import Plugin, RecipeError, Stage
from recipes.data.loaders import StepLoader
from recipes.data.split import Split
from recipes.engine.module import RecipeModule
from tests.ranks import on_ranks

SAMPLES = 24


def images():
    """Each with its number in its corner, on the left side."""
    x = torch.zeros(SAMPLES, 1, 2, 4)
    x[:, 0, 0, 0] = torch.arange(1.0, SAMPLES + 1)
    return x


class Sides(Plugin):
    """Keeps which sides were seen, by epoch and sample: 1 for the mirrored one."""

    stage, group, option = Stage.NOISE, "test", "sides"

    def __init__(self):
        self.seen = {}

    def transform_batch(self, batch, module):
        for image, number in zip(batch.x[:, 0, 0], batch.samples.tolist(), strict=True):
            mirrored = bool(image[3])
            assert image[3 * mirrored] == number + 1
            assert self.seen.setdefault((batch.epoch, number), mirrored) == mirrored
        return batch


def trained(steps=12, parts=1, seed=0, start=0, world=1, size=8, strategy="auto"):
    module = RecipeModule(
        nn.Sequential(nn.Flatten(), nn.Linear(8, 3)),
        nn.functional.cross_entropy,
        partial(torch.optim.SGD, lr=0.1),
        seed=seed,
        parts=parts,
    )
    sides = Sides()
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", devices=world, callbacks=[AlternatingFlip(), sides], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, strategy=strategy, use_distributed_sampler=False,
    )  # fmt: skip
    split = Split(images(), {"": torch.arange(SAMPLES) % 3})
    trainer.fit(module, StepLoader(split, size, seed, parts, lambda: start + module.steps_done, world=world))
    return sides.seen


def test_every_image_is_mirrored_in_every_other_epoch():
    seen = trained()
    assert len(seen) == 4 * SAMPLES
    for number in range(SAMPLES):
        first, *others = [seen[epoch, number] for epoch in range(4)]
        assert others == [not first, first, not first]
    assert 4 < sum(seen[0, number] for number in range(SAMPLES)) < SAMPLES - 4
    assert seen != trained(seed=1)


def test_parts_resumed_runs_and_ranks_see_the_same_sides():
    whole = trained()
    assert trained(size=4, parts=2) == whole
    rest = trained(steps=8, start=4)
    assert rest and rest.items() <= whole.items()


def of_a_rank(parts):
    return trained(parts=parts, size=8, world=2, strategy="ddp")


@pytest.mark.slow
def test_two_processes_see_the_same_sides():
    first, second = on_ranks(2, of_a_rank, 1)
    assert len(first) == len(second) and {**first, **second} == trained()


def test_coins_are_fair_and_belong_to_number_and_seed():
    numbers, seeds = torch.arange(20_000), torch.randint(2**62, (2,)).tolist()
    one, other = (coins(numbers, seed) for seed in seeds)
    for heads in (one, other, one ^ other, one[1:] ^ one[:-1], one[::2] ^ one[1::2]):
        assert abs(float(heads.float().mean()) - 0.5) < 6 * 0.5 / 10_000**0.5
    order = torch.randperm(20_000)
    assert torch.equal(coins(numbers[order], seeds[0]), one[order])


def test_a_loader_that_does_not_tell_samples_apart_is_refused():
    data = DataLoader(TensorDataset(images(), torch.arange(SAMPLES) % 3), batch_size=4)
    module = RecipeModule(nn.Flatten(), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", callbacks=[AlternatingFlip()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(
        RecipeError, match="alternating_flip needs to know which sample is which, and a DataLoader does not tell"
    ):
        trainer.fit(module, data)
