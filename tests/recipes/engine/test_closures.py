"""Optimizers that ask for gradients themselves, and schedules, whoever made them."""

import copy
import warnings
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import Plugin, RecipeError, Stage
from plugins.clipping.norm import ClipNorm
from plugins.wrapper.sam import SAM
from recipes.engine.module import RecipeModule

LBFGS = partial(torch.optim.LBFGS, lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
SGD = partial(torch.optim.SGD, lr=0.1)


def net(norm=False):
    return nn.Sequential(nn.Linear(6, 5), *([nn.BatchNorm1d(5)] if norm else []), nn.Tanh(), nn.Linear(5, 3))


def data():
    return TensorDataset(torch.randn(24, 6), torch.randint(3, (24,)))


def fit(
    model, samples, *callbacks, optimizer=SGD, epochs=2, validation=None, kind=RecipeModule, precision="32-true", **further
):
    module = kind(model, nn.functional.cross_entropy, optimizer, **further)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, precision=precision, callbacks=list(callbacks), **quiet)
        trainer.fit(module, DataLoader(samples, 8), None if validation is None else DataLoader(validation, 8))
    return module


def by_hand(model, samples, epochs=2, transform=lambda parameters: None, optimizer=LBFGS):
    optimizer = optimizer(model.parameters())
    for _ in range(epochs):
        for x, y in DataLoader(samples, 8):

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                transform(list(model.parameters()))
                return loss

            optimizer.step(closure)
    return list(model.parameters())


@pytest.mark.parametrize("parts", [1, 2])
def test_lbfgs_trains_as_written_out(parts):
    model, samples = net().double(), TensorDataset(torch.randn(24, 6).double(), torch.randint(3, (24,)))
    expected = by_hand(copy.deepcopy(model), samples)
    trained = fit(model, samples, optimizer=LBFGS, parts=parts, precision="64-true")
    assert trained.steps_done == 6
    for found, wanted in zip(trained.model.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_gradients_are_transformed_each_time_they_are_asked_for():
    model, samples = net(), data()
    expected = by_hand(copy.deepcopy(model), samples, transform=lambda ps: nn.utils.clip_grad_norm_(ps, 0.1))
    trained = fit(model, samples, ClipNorm(0.1), optimizer=LBFGS)
    for found, wanted in zip(trained.model.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_groups_that_are_added_later_are_transformed_too():
    class Adds(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                self.late.requires_grad_(True)
                trainer.optimizers[0].add_param_group({"params": [self.late]})

    class Look(Plugin):
        stage, group, option = Stage.DIAGNOSTICS, "test", "look"

        def __init__(self):
            self.counts = []

        def transform_gradient(self, module, parameters):
            self.counts.append(len(parameters))

    adds, look = Adds(), Look()
    adds.late = nn.Parameter(torch.ones(1), requires_grad=False)
    fit(net(), data(), adds, look)
    assert look.counts == [4] * 3 + [5] * 3


def test_statistics_and_metrics_count_the_first_pass_only():
    model, samples = net(norm=True), data()
    trained = fit(model, samples, optimizer=LBFGS, epochs=1)
    assert int(trained.model[1].num_batches_tracked) == 3
    assert trained.recorder.train.counts["loss"] == 24


def test_an_optimizer_that_evaluates_with_autograd_off():
    class Careless(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            loss = None if closure is None else closure()  # without torch.enable_grad
            super().step()
            return loss

    model, samples = net(), data()
    plain = fit(copy.deepcopy(model), samples)
    careless = fit(model, samples, optimizer=partial(Careless, lr=0.1))
    assert all(map(torch.equal, plain.model.parameters(), careless.model.parameters()))


@pytest.mark.parametrize(
    ("callbacks", "precision", "message"),
    [
        ([SAM(0.05)], "32-true", "LBFGS asks for gradients several times a step, and so does wrapper/sam: leave it out"),
        ([], "16-mixed", "LBFGS asks for gradients several times a step, which the scaled gradients"),
    ],
)
def test_what_cannot_be_right_beside_it_is_refused(callbacks, precision, message):
    class Scaled(RecipeModule):
        def configure_optimizers(self):
            self.trainer.strategy.precision_plugin.precision = precision  # of a GPU
            return super().configure_optimizers()

    with pytest.raises(RecipeError, match=message):
        fit(net(), data(), *callbacks, optimizer=LBFGS, kind=Scaled)


# ------------------------------------------------------------------ schedules


class Rates(L.Callback):
    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


class Automatic(L.LightningModule):
    """What Lightning makes of the same schedule in automatic optimization."""

    def __init__(self, model, make):
        super().__init__()
        self.model, self.make = model, make

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return self.make(SGD(self.parameters()))


SCHEDULES = {
    "a step": lambda o: {"optimizer": o, "lr_scheduler": {"scheduler": StepLR(o, 2), "interval": "step"}},
    "every third step": lambda o: {
        "optimizer": o,
        "lr_scheduler": {"scheduler": StepLR(o, 1), "interval": "step", "frequency": 3},
    },
    "an epoch": lambda o: ([o], [StepLR(o, 1, gamma=0.5)]),
    "every second epoch": lambda o: {
        "optimizer": o,
        "lr_scheduler": {"scheduler": StepLR(o, 1), "interval": "epoch", "frequency": 2},
    },
    "none": lambda o: o,
}


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_of_somebody_are_stepped_as_lightning_steps_them(name):
    class Own(RecipeModule):
        def configure_optimizers(self):
            return SCHEDULES[name](super().configure_optimizers())

    model, samples, found, expected = net(), data(), Rates(), Rates()
    module = fit(copy.deepcopy(model), samples, found, kind=Own, epochs=5)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=5, callbacks=[expected], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    automatic = Automatic(model, SCHEDULES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(automatic, DataLoader(samples, 8))
    assert found.rates == pytest.approx(expected.rates) and len(found.rates) == 15
    for one, other in zip(module.model.parameters(), automatic.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_schedule_that_is_put_in_the_place_of_another_is_stepped_alone():
    class Swaps(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                self.before = trainer.lr_scheduler_configs[0].scheduler
                self.steps = self.before.last_epoch
                trainer.lr_scheduler_configs[0].scheduler = LambdaLR(trainer.optimizers[0], lambda step: 1 / (1 + step))

    swaps, rates = Swaps(), Rates()
    fit(net(), data(), swaps, rates, scheduler=lambda optimizer, steps: LambdaLR(optimizer, lambda step: 1.0), epochs=2)
    assert swaps.before.last_epoch == swaps.steps == 3
    assert rates.rates == pytest.approx([0.1] * 3 + [0.1, 0.05, 0.1 / 3])


def test_a_plateau_goes_by_the_validation_loss():
    rates = Rates()
    samples = data()
    fit(
        net(), samples, rates, validation=samples, epochs=4,
        scheduler=lambda optimizer, steps: ReduceLROnPlateau(optimizer, patience=0, threshold=1e9, threshold_mode="abs"),
    )  # fmt: skip
    assert rates.rates == pytest.approx([0.1] * 6 + [0.01] * 3 + [0.001] * 3)


@pytest.mark.parametrize("callbacks", [(), (SAM(rho=0.05),)], ids=["alone", "sam"])
@pytest.mark.parametrize("parts", [1, 2])
def test_an_update_is_made_in_single_precision_where_passes_are_in_half(callbacks, parts):
    passes, updates = set(), set()

    class Products(torch.optim.SGD):
        def step(self, closure=None):
            loss = closure() if closure else None
            updates.update((group["params"][0].grad @ group["params"][0].T).dtype for group in self.param_groups)
            super().step()
            return loss

    model = net()
    model[0].register_forward_hook(lambda module, inputs, output: passes.update([output.dtype] if output.requires_grad else []))
    fit(model, data(), *callbacks, optimizer=partial(Products, lr=0.1), precision="bf16-mixed", parts=parts, epochs=1)
    assert passes == {torch.bfloat16} and updates == {torch.float32}


def test_what_follows_an_update_is_in_single_precision_too():
    class Following(Plugin):
        stage, group, option, products = Stage.DIAGNOSTICS, "test", "following", set()

        def after_step(self, module, optimizer):
            assert not torch.is_autocast_enabled("cpu")
            weight = module.model[0].weight
            self.products.add((weight @ weight.T).dtype)

    fit(net(), data(), Following(), precision="bf16-mixed", epochs=1)
    assert Following.products == {torch.float32}
