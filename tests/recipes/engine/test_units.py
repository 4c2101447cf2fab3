"""Regressions are learned with mean 0 and deviation 1, and predicted and measured in their own units."""

import math

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from plugins.averaging.ema import EMA
from plugins.clipping.norm import ClipNorm
from plugins.errors import RecipeError
from plugins.loss.by_task import LossByTask
from plugins.loss.mse import MSE
from plugins.wrapper.sam import SAM
from recipes.engine.module import RecipeModule
from recipes.engine.units import InTargetUnits, column_moments, depends_on_difference
from recipes.run.build import build_data, load_run
from recipes.run.evaluate import evaluate


@pytest.fixture
def diabetes(tmp_path):
    """The words of a run on the raw numbers of a table: targets from 25 to 346, inputs of very different scales."""
    table = load_diabetes(scaled=False)
    np.savez(tmp_path / "diabetes.npz", x=table.data, y=table.target[:, None])
    return "data=npz", f"data.path={tmp_path / 'diabetes.npz'}"


# ------------------------------------------------------------------ the statistics


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("columns", [(), (1,), (3,)])
def test_moments_are_those_of_all_pieces_together(columns, dtype):
    y = (1e3 + 50 * torch.randn(101, *columns)).to(dtype)
    mean, deviation = column_moments(y.split(7))
    rows = y.double().numpy().reshape(101, -1)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, rows.std(0), rtol=1e-12)


def test_constant_columns_have_deviation_one():
    y = torch.stack([torch.randn(50), torch.full((50,), 0.1), torch.full((50,), -3e6)], 1)
    mean, deviation = column_moments(y.split(8))
    assert deviation[1:].tolist() == [1, 1] and deviation[0] != 1
    torch.testing.assert_close(mean[1:], y[0, 1:].double())


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e20])
def test_numbers_that_cannot_be_squared_are_refused(bad):
    with pytest.raises(RecipeError, match="finite numbers|squares are too large"):
        column_moments([torch.tensor([1.0, bad])])
    with pytest.raises(RecipeError, match="got none"):
        column_moments([])


@pytest.mark.parametrize(
    ("loss", "holds"),
    [
        (MSE(), True),
        (nn.MSELoss(), True),
        (nn.L1Loss(), True),
        (nn.SmoothL1Loss(), True),
        (nn.HuberLoss(), True),
        (lambda output, target: (output - target).abs().pow(1.5).mean(), True),
        (nn.BCEWithLogitsLoss(), False),
        (nn.BCELoss(), False),
        (nn.PoissonNLLLoss(), False),
        (nn.KLDivLoss(), False),
        (functional.cross_entropy, False),
        (lambda output, target: ((output - target) / target).abs().mean(), False),
        (lambda output, target: 1 / 0, False),
    ],
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_losses_of_differences_are_known(loss, holds, outputs):
    if loss is functional.cross_entropy and outputs == 1:
        return  # it is always 0
    state = torch.get_rng_state()
    assert depends_on_difference(loss, outputs) is holds
    assert torch.equal(state, torch.get_rng_state())


# ------------------------------------------------------------------ from Python


def fit(module, loader, *callbacks, steps=6, **arguments):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", max_steps=steps, callbacks=list(callbacks), **quiet, **arguments)
    trainer.fit(module, loader, loader)
    return trainer


def by_hand(model, x, y, lr, steps, scaled):
    """Plain gradient descent on all samples, on targets that are standardized or as they are; predictions in their units."""
    mean, deviation = (y.mean(0), y.std(0, correction=0)) if scaled else (0.0, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.mse_loss(model(x), (y - mean) / deviation).backward()
        optimizer.step()
    with torch.no_grad():
        return model(x) * deviation + mean


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("parts", [1, 2])
def test_it_is_the_training_on_standardized_targets(scaled, columns, parts):
    x = torch.randn(24, 5)
    y = torch.tensor([300.0, -5.0, 1e4])[:columns] + torch.tensor([70.0, 0.1, 500.0])[:columns] * torch.randn(24, columns)
    lr = 0.1 if scaled else 1e-7
    model, twin = nn.Linear(5, columns), nn.Linear(5, columns)
    twin.load_state_dict(model.state_dict())
    module = RecipeModule(model, LossByTask(), lambda p: torch.optim.SGD(p, lr), parts=parts, standardize_targets=scaled)
    fit(module, DataLoader(TensorDataset(x, y), batch_size=24))
    expected = by_hand(twin, x, y, lr, 6, scaled)
    with torch.no_grad():
        found = module.outputs(x)[""]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module.model(x), expected, rtol=1e-4, atol=1e-4)  # so does the model by itself
    assert module.metrics["val/loss"] == pytest.approx(float(functional.mse_loss(expected, y)), rel=1e-3)  # in their units


def test_training_and_validation_are_measured_in_the_same_units():
    x, y = torch.randn(16, 5), 1e4 + 100 * torch.randn(16)
    module = RecipeModule(nn.Linear(5, 1), LossByTask(), lambda p: torch.optim.SGD(p, 0.0))
    fit(module, DataLoader(TensorDataset(x, y), batch_size=16))
    assert (
        module.metrics["train/loss"] == pytest.approx(module.metrics["val/loss"], rel=1e-5) and module.metrics["val/loss"] > 100
    )
    assert module.evaluate_training(16)["loss"] == pytest.approx(module.metrics["val/loss"], rel=1e-5)
    assert 0.1 < float(module.last_objective) < 20  # what is minimized is not


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.heads = nn.Linear(6, 8), nn.ModuleDict({"a": nn.Linear(8, 2), "b": nn.Linear(8, 3)})

    def forward(self, x):
        return {name: head(self.body(x)) for name, head in self.heads.items()}


class Pairs(torch.utils.data.Dataset):
    def __init__(self):
        self.x, self.a, self.b = torch.randn(20, 6), 1e3 * torch.randn(20, 2) + torch.tensor([5e4, 0.0]), torch.arange(20) % 3

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return self.x[index], {"a": self.a[index], "b": self.b[index]}


@pytest.mark.parametrize("callbacks", [(), (EMA(), SAM(), ClipNorm())])
def test_of_several_tasks_the_regressions_alone_are_standardized(callbacks):
    data = Pairs()
    module = RecipeModule(Two(), LossByTask(), lambda p: torch.optim.SGD(p, 0.05))
    fit(module, DataLoader(data, batch_size=10), *callbacks, steps=20)
    assert isinstance(module.model, InTargetUnits)
    torch.testing.assert_close(module.model.target_mean, data.a.mean(0))
    torch.testing.assert_close(module.model.target_deviation, data.a.std(0, correction=0))
    outputs = {name: values.detach() for name, values in module.outputs(data.x).items()}
    assert float(functional.mse_loss(outputs["a"], data.a)) < 2 * float(data.a.var(0).mean())
    objectives = module.losses(outputs, {"a": data.a, "b": data.b})
    assert float(objectives["a"]) < 2 and float(objectives["b"]) == pytest.approx(
        float(functional.cross_entropy(outputs["b"], data.b))
    )


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true"])
def test_no_precision_rounds_the_units(precision):
    x, y = torch.randn(16, 5), 2020.3 + 0.5 * torch.randn(16, 1)
    module = RecipeModule(nn.Linear(5, 1), LossByTask(), lambda p: torch.optim.SGD(p, 0.05))
    if precision == "bf16-true":  # bf16 knows 2016 and 2024, and Lightning makes it of the targets
        with pytest.raises(RecipeError, match="bf16-true rounds targets near 2020 .* trainer.precision=bf16-mixed"):
            fit(module, DataLoader(TensorDataset(x, y), batch_size=16), precision=precision)
        module, y = RecipeModule(nn.Linear(5, 1), LossByTask(), lambda p: torch.optim.SGD(p, 0.05)), y - 2019
    fit(module, DataLoader(TensorDataset(x, y), batch_size=16), precision=precision, steps=30)
    assert module.model.target_mean.dtype == torch.float32
    assert module.metrics["val/loss"] < 0.6


def test_a_loss_of_another_kind_keeps_its_targets():
    x, y = torch.randn(16, 5), (torch.rand(16, 3) > 0.5).float()
    module = RecipeModule(nn.Linear(5, 3), nn.BCEWithLogitsLoss(), lambda p: torch.optim.SGD(p, 0.1))
    fit(module, DataLoader(TensorDataset(x, y), batch_size=16))
    assert not isinstance(module.model, InTargetUnits)
    assert module.metrics["val/loss"] == pytest.approx(float(nn.BCEWithLogitsLoss()(module.model(x).detach(), y)), rel=1e-5)


def test_a_loader_without_a_length_is_not_read_to_its_end(caplog):
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield torch.randn(5), torch.randn(1)

    module = RecipeModule(nn.Linear(5, 1), LossByTask(), lambda p: torch.optim.SGD(p, 0.1))
    fit(module, DataLoader(Endless(), batch_size=4), limit_val_batches=0, steps=2)
    assert not isinstance(module.model, InTargetUnits) and "no length" in caplog.text


@pytest.mark.parametrize("make", [lambda z: z.squeeze(1), lambda z: z])
def test_outputs_of_one_column_with_or_without_it(make):
    class One(nn.Linear):
        def forward(self, x):
            return make(super().forward(x))

    x, y = torch.randn(16, 5), 100 + torch.randn(16)
    module = RecipeModule(One(5, 1), LossByTask(), lambda p: torch.optim.SGD(p, 0.1))
    fit(module, DataLoader(TensorDataset(x, y), batch_size=16))
    assert module.metrics["val/loss"] < 20


def test_a_wrong_shape_is_not_broadcast_away():
    x, y = torch.randn(16, 5), torch.randn(16, 3)
    module = RecipeModule(nn.Linear(5, 3), LossByTask(), lambda p: torch.optim.SGD(p, 0.1))
    module.seed = 0
    fit(module, DataLoader(TensorDataset(x, y), batch_size=16))
    module.model.model = nn.Linear(5, 1)
    with pytest.raises(RecipeError, match=r"returns the shape \(16, 1\)"):
        module.outputs(x)


# ------------------------------------------------------------------ from the command line


def test_the_default_run_on_a_raw_table_learns(folder, diabetes, capsys):
    result = folder.train(*diabetes, "max_epochs=8", "model.hidden=[16]")
    data = build_data(result["config"])
    data.setup()
    targets = {name: split.targets[""] for name, split in data.splits.items()}
    shown = f"standardized (mean {targets['train'].mean().item():.4g}, deviation"
    assert result["status"] == "finished" and shown in capsys.readouterr().out
    assert result["metrics"]["test/loss"] < float(targets["test"].var())  # less than of the mean, in squares of their units
    module = load_run(folder.path)
    torch.testing.assert_close(module.model.target_mean, targets["train"].double().mean(0).float())
    with torch.no_grad():
        predictions = module.outputs(data.splits["test"].x)[""]
    assert result["metrics"]["test/loss"] == pytest.approx(float(functional.mse_loss(predictions, targets["test"])), rel=1e-4)
    again = evaluate(folder.path, result["config"], [])
    assert again["metrics"]["test/loss"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-6)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(folder, folders, diabetes):
    whole = folders("whole").train(*diabetes, "max_steps=14", "trainer.val_every_n_steps=4")
    folder.train(*diabetes, "max_steps=6", "trainer.val_every_n_steps=4")
    folder.resume("max_steps=14")
    assert folder.result["metrics"] == pytest.approx(whole["metrics"], rel=1e-6)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e6, 1e12])
def test_inputs_and_targets_of_any_scale_train_alike(folders, tmp_path, scale):
    table = load_diabetes(scaled=False)
    found = []
    for factor in (1.0, scale):
        np.savez(tmp_path / f"{factor}.npz", x=table.data * factor, y=table.target[:, None] * factor)
        words = ("data=npz", f"data.path={tmp_path / f'{factor}.npz'}", "max_steps=20", "preprocessing.eps=0")
        found.append(folders(str(factor)).train(*words)["metrics"]["test/loss"] / factor**2)
    assert found[1] == pytest.approx(found[0], rel=1e-2)


def test_features_that_are_left_out_for_their_scale_are_told(folder, tmp_path):
    table = load_diabetes(scaled=False)
    np.savez(tmp_path / "small.npz", x=table.data * 1e-12, y=table.target[:, None])
    with pytest.warns(
        UserWarning, match=r"10 of 10 features deviate by no more than preprocessing.eps=1e-08.*preprocessing.eps="
    ):
        folder.train("data=npz", f"data.path={tmp_path / 'small.npz'}", "max_steps=2")


def test_the_option_is_part_of_the_trained_model(folder, diabetes):
    from recipes.config.changing import expect_same_split

    result = folder.train(*diabetes, "max_steps=2")
    config = result["config"]
    with pytest.raises(RecipeError, match="data.standardize_targets is part of the trained model"):
        expect_same_split(config["data"], {**config["data"], "standardize_targets": False})
    with pytest.raises(RecipeError, match="data.standardize_targets must be true or false"):
        folder.train(*diabetes, "data.standardize_targets=1.5", "max_steps=2")
