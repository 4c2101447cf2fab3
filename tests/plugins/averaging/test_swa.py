import copy

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.data import DataLoader, TensorDataset

from plugins.averaging.ema import EMA
from plugins.averaging.swa import SWA, take_in
from plugins.base import RecipeError
from plugins.stopping.early import EarlyStopping
from recipes.engine.calibration import _batches
from recipes.engine.module import RecipeModule
from tests.harness import config_of, fit


def net():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


class History(L.Callback):
    """The weights after each step, the rate of each step, and what was validated."""

    def __init__(self):
        self.models, self.rates, self.validated = [], [], []

    def on_before_zero_grad(self, trainer, module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, module, *rest):
        self.models.append(copy.deepcopy(module.model))

    def on_validation_end(self, trainer, module):
        self.validated.append(copy.deepcopy(module.model.state_dict()))


def train(plugin, *further, steps=8, schedule=None, model=None, rate=0.3):
    loader = DataLoader(TensorDataset(torch.randn(64, 6), torch.arange(64) % 3), batch_size=16)
    watch = History()
    module = RecipeModule(model or net(), nn.functional.cross_entropy, lambda groups: torch.optim.SGD(groups, rate), schedule)
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=[plugin, *further, watch], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    return module, watch, loader


def test_equals_the_mean_of_swa_utils():
    weights = [torch.randn(4, 3) for _ in range(5)]
    average = [weights[0].clone()]
    for count, weight in enumerate(weights[1:], 1):
        take_in(average, [weight], count)
    torch.testing.assert_close(average[0], torch.stack(weights).mean(0))


def test_evaluates_and_leaves_the_mean_with_statistics_measured_anew():
    module, watch, loader = train(SWA(start=0.5))
    averaged = AveragedModel(watch.models[4])
    for model in watch.models[4:]:
        averaged.update_parameters(model)
    update_bn((x for x, _ in loader), averaged)
    expected = averaged.module.state_dict()
    for seen in (watch.validated[-1], module.model.state_dict()):
        for name, value in expected.items():
            if name != "1.num_batches_tracked":
                torch.testing.assert_close(seen[name], value, msg=name)
        assert seen["1.num_batches_tracked"] == 8
    before = watch.models[3].state_dict()  # until averaging begins the weights themselves are validated
    assert all(torch.equal(watch.validated[0][name], value) for name, value in before.items())


def test_training_does_not_see_it():
    torch.manual_seed(5)
    model = net()
    torch.manual_seed(6)
    _, plain, _ = train(L.Callback(), model=copy.deepcopy(model))
    torch.manual_seed(6)
    _, watch, _ = train(SWA(start=0.25), model=copy.deepcopy(model))
    for first, second in zip(plain.models, watch.models, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


def test_dropout_is_off_and_frozen_layers_stay_while_statistics_are_measured():
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.9), nn.BatchNorm1d(16), nn.BatchNorm1d(16), nn.Linear(16, 3))
    model[3].eval()
    module, _, loader = train(SWA(start=0.5), model=model)
    assert torch.equal(module.model[3].running_mean, torch.zeros(16))
    with torch.no_grad():
        h = module.model[0](torch.cat([x for x, _ in loader]))
    torch.testing.assert_close(module.model[2].running_mean, h.mean(0))
    assert [part.training for part in module.model] == [True, True, True, False, True] and module.model[2].momentum == 0.1


def test_its_rate_holds_from_the_start_and_the_schedule_goes_on_beneath():
    def halving(optimizer, steps):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    _, watch, _ = train(SWA(start=0.5, lr=0.07), schedule=halving)
    assert watch.rates == pytest.approx([0.3, 0.15, 0.075, 0.0375, *4 * [0.07]])
    _, watch, _ = train(SWA(start=0.5), schedule=halving)
    assert watch.rates == pytest.approx([0.3 * 0.5**step for step in range(8)])


def test_resumes_bit_for_bit_beside_batch_norm_and_a_temperature(tmp_path):
    names, words = ["averaging/swa", "normalization/batch", "inference/temperature"], ("trainer.val_every_n_steps=2",)
    config = config_of(names, *words, "averaging.start=0.3", "averaging.lr=0.01")
    whole = fit(config, tmp_path / "whole", 6, copy_at=3)
    resumed = fit(config, tmp_path / "resumed", 6, resume=tmp_path / "whole" / "copy.ckpt")
    assert whole.metrics == resumed.metrics
    first, second = whole.state_dict(), resumed.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("plugin", [SWA(start=0.75), SWA(start=0.5, when=(0.0, 0.4)), EMA(when=(0.9, 1.0))])
def test_a_training_that_ends_before_it_begins_is_told(plugin):
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, *rest):
            trainer.should_stop = trainer.global_step == 4

    train(plugin, Stop())
    advice = "take a smaller averaging.start" if isinstance(plugin, SWA) else "let averaging.when last to its end"
    assert plugin.events == [f"the training ended without an average, so its weights are evaluated: {advice}"]
    plugin.start, plugin.when = 0.25, (0.0, 1.0)
    train(plugin)
    assert plugin.events == []


def test_weights_that_are_put_back_keep_the_statistics_they_were_judged_with():
    """Those of the first validation, when nothing was averaged yet."""
    module, watch, _ = train(SWA(start=0.5), EarlyStopping(patience=9, mode="max"))
    best, found = watch.validated[0], module.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in best.items())


def test_refuses():
    for arguments, message in [
        ({"start": 1.5}, "start must be a probability between 0 and 1"),
        ({"lr": 0.0}, "lr must be a number > 0"),
    ]:
        with pytest.raises(RecipeError, match=message):
            SWA(**arguments)
    with pytest.raises(
        RecipeError, match=r"^averaging/swa.lr: .* the rate of the first, which is 0; set optimizer.lr, or leave"
    ):
        train(SWA(start=0.5, lr=0.1), rate=0.0)


def test_batches_of_a_split_are_those_of_the_loader():
    module, _, loader = train(SWA(start=0.5))
    for split in ("train", "val"):
        assert sum(len(batch) for batch in _batches(module, split)) == len(loader.dataset)
