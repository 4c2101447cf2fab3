"""What options find on a split: with the weights that are evaluated, before each validation, and kept in every checkpoint."""

from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.averaging.ema import EMA
from plugins.base import Plugin, RecipeError
from recipes.engine.calibration import Calibrated
from recipes.engine.module import RecipeModule

LOADER = DataLoader(TensorDataset(torch.randn(40, 6), torch.arange(40) % 3), batch_size=16)


class Middle(Plugin):
    """Keeps the mean output, and which weights it was asked with."""

    stage = 410

    def __init__(self, split):
        self.calibrated_on, self.asked = split, []

    def calibrate(self, module, batches):
        outputs = torch.cat([module.outputs(batch.x)[""] for batch in batches])
        self.asked.append((module.steps_done, len(outputs), module.model.training, module.model.weight.clone()))
        return {"mean": outputs.mean(0)}


def trained(plugin, *validation, further=(), training=LOADER, **options):
    module = RecipeModule(nn.Linear(6, 3), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.5))
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[plugin, *further], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(module, training, *validation)
    return module, trainer


@pytest.mark.parametrize("split", ["train", "val"])
def test_is_asked_before_each_validation_and_at_the_end_with_the_weights_that_are_evaluated(split):
    plugin = Middle(split)
    module, trainer = trained(plugin, LOADER, further=[EMA(0.9)])
    assert [(step, count, mode) for step, count, mode, _ in plugin.asked] == [(3, 40, False), (6, 40, False), (6, 40, False)]
    assert torch.equal(plugin.asked[-1][3], module.model.weight) and torch.equal(plugin.asked[1][3], module.model.weight)
    found = module.calibrated.of(plugin.state_key)["mean"]
    with torch.no_grad():
        torch.testing.assert_close(found, module.model(torch.cat([x for x, _ in LOADER])).mean(0))
    trainer.test(module, LOADER, verbose=False)
    assert len(plugin.asked) == 3  # nothing is found on a test split
    other = RecipeModule(nn.Linear(6, 3), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.5))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.calibrated.of(plugin.state_key)["mean"], found)


def test_refuses_a_training_without_its_split_and_a_split_of_another_name():
    with pytest.raises(RecipeError, match="needs validation data: give the training some"):
        trained(Middle("val"))
    with pytest.raises(RecipeError, match="calibrates on 'test', expected one of train, val"):
        trained(Middle("test"), LOADER)
    assert trained(Middle("train"))[0].calibrated.of("engine/test_calibration")


def test_what_was_found_is_not_rounded_by_a_model_of_16_bits():
    kept = Calibrated()
    kept.put("a/b", {"T": torch.tensor(1.2345678)})
    assert kept.to(torch.bfloat16).of("a/b")["T"].dtype == torch.float32 and float(kept.of("a/b")["T"]) == pytest.approx(
        1.2345678
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_loader_whose_workers_stay_is_read_beside_the_loop_that_reads_it(split):
    stay = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "fork"}
    loaders = [DataLoader(LOADER.dataset, batch_size=10, **(stay if split == name else {})) for name in ("train", "val")]
    plugin = Middle(split)
    _, trainer = trained(plugin, loaders[1], training=loaders[0], val_check_interval=0.5)
    assert trainer.global_step == 8 and "val/loss" in trainer.callback_metrics
    assert [(step, count) for step, count, *_ in plugin.asked] == [(2, 40), (4, 40), (6, 40), (8, 40), (8, 40)]
