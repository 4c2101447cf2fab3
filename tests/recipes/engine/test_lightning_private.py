"""Lightning's loops stand where the number of steps says, whatever they would have said themselves."""

import lightning as L
import pytest
import torch
from torch import nn

from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.data.split import Split
from recipes.engine.checkpoint import BestAndLast
from recipes.engine.lightning_private import Position, position, steps_an_epoch
from recipes.engine.module import RecipeModule
from tests.sparsely import sparsely

EPOCH = 5


@pytest.mark.parametrize("an_epoch", [1, 2, 7])
@pytest.mark.parametrize("steps", range(16))
def test_counting_one_by_one_gives_the_same(steps, an_epoch):
    begun = ended = batches = 0
    for _ in range(steps):
        if batches == 0:
            begun += 1
        batches += 1
        if batches == an_epoch:
            ended, batches = ended + 1, 0
    assert position(steps, an_epoch) == Position(begun, ended, batches)


class Watch(L.Callback):
    """What happens, in order."""

    def __init__(self):
        self.events = []

    def on_train_epoch_start(self, trainer, module):
        self.events.append(("epoch", trainer.current_epoch, trainer.global_step))

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.events.append(("step", trainer.current_epoch, batch_idx, trainer.global_step))

    def on_validation_start(self, trainer, module):
        self.events.append(("validation", trainer.global_step))

    def on_train_epoch_end(self, trainer, module):
        self.events.append(("end", trainer.current_epoch, trainer.global_step))


def fit(folder, resume=None, every=None, **limits):
    """Train a tiny model; what happened, and the trainer."""
    torch.manual_seed(0)
    split = Split(torch.randn(2 * EPOCH, 3), {"": torch.arange(2 * EPOCH) % 2})
    module = RecipeModule(nn.Linear(3, 2), nn.CrossEntropyLoss(), lambda parameters: torch.optim.SGD(parameters, 0.1))
    watch, keeper = Watch(), BestAndLast(folder, "val/loss", every_n_steps=1)
    interval = {"val_check_interval": every, "check_val_every_n_epoch": None} if every else {}
    trainer = L.Trainer(
        accelerator="cpu", callbacks=[watch, keeper], logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, default_root_dir=folder, **interval, **limits,
    )  # fmt: skip
    loader = StepLoader(split, 2, 0)
    trainer.fit(module, loader, EvaluationLoader(split), ckpt_path=resume)
    assert steps_an_epoch(trainer) == EPOCH
    return watch.events, trainer


@pytest.mark.parametrize("every", [None, 1, 3, 4, 5])
@pytest.mark.parametrize("first", sparsely([{"max_steps": number} for number in range(1, 2 * EPOCH + 1)] + [{"max_epochs": 1}]))
def test_a_training_goes_on_whatever_limit_has_ended_it(tmp_path, first, every):
    """Both halves together are the whole, but for an epoch whose end came by the limit."""
    begun, trainer = fit(tmp_path / "halves", every=every, **{"max_epochs": -1} | first)
    done = trainer.global_step
    cut = done % EPOCH > 0
    assert begun[-1][0] == "end"
    if cut:
        del begun[-1]
    limit = {"max_epochs": 3} if done % 2 else {"max_steps": 3 * EPOCH, "max_epochs": -1}
    rest, _ = fit(tmp_path / "halves", tmp_path / "halves" / "last.ckpt", every, **limit)
    whole, _ = fit(tmp_path / "whole", every=every, max_epochs=3)
    assert [*begun, *rest] == whole
