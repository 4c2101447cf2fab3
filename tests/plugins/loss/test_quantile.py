from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_pinball_loss
from torch import nn
from torchmetrics import MeanSquaredError

from plugins.base import Batch, Plugin, RecipeError, Refusal, Setting, Stage, Task
from plugins.loss.quantile import QuantileLoss
from plugins.metric.mae import MeanAbsoluteError
from recipes.engine.measuring import Measuring
from recipes.engine.module import RecipeModule
from recipes.engine.units import InTargetUnits

LEVELS = [0.1, 0.5, 0.9]


@pytest.mark.parametrize("q", [0.05, 0.5, 0.8])
def test_is_that_of_scikit_learn(q):
    z, y = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 3, dtype=torch.float64)
    expected = mean_pinball_loss(y, z, alpha=q, multioutput="raw_values").mean()
    assert QuantileLoss(q)(z, y).mean().item() == pytest.approx(expected)


def test_several_are_the_mean_over_columns_and_quantiles():
    y, z = torch.randn(50, 2, dtype=torch.float64), torch.randn(50, 6, dtype=torch.float64)
    pairs = [(c, k) for c in range(2) for k in range(3)]
    expected = np.mean([mean_pinball_loss(y[:, c], z[:, 3 * c + k], alpha=LEVELS[k]) for c, k in pairs])
    loss = QuantileLoss(LEVELS)
    task = loss.refine(Task("", "regression", 6))
    assert task.quantiles == tuple(LEVELS) and loss.refine(task) == task
    assert loss(z, task.in_shape(y, z)).mean().item() == pytest.approx(expected)


def built(loss, targets, outputs, plugins=()):
    module = RecipeModule(nn.Linear(3, outputs), loss, partial(torch.optim.SGD, lr=0.1))
    setting = Setting((3,), (Task("", "regression", outputs),), training_targets=lambda: iter([{"": targets}]))
    module.build(plugins, setting, devices=1)
    return module


@pytest.mark.parametrize("columns", [1, 2])
def test_several_are_learned_with_deviation_1_and_measured_in_the_units_of_the_targets(columns):
    y = 500 + 100 * torch.randn(300, columns)
    module = built(QuantileLoss(LEVELS), y, 3 * columns, [MeanAbsoluteError()])
    assert isinstance(module.model, InTargetUnits) and module.model.target_mean.shape == (3 * columns,)
    z = module.model(torch.randn(300, 3))
    deviation = y.double().std(0, correction=0)
    pairs = [(c, k) for c in range(columns) for k in range(3)]
    each = [mean_pinball_loss(y[:, c], z.detach()[:, 3 * c + k], alpha=LEVELS[k]) for c, k in pairs]
    for target in (y, y.squeeze(1)):
        assert module.task_losses.reported({"": z}, {"": target})[""].item() == pytest.approx(np.mean(each), rel=1e-4)
        found = module.losses({"": z}, {"": target})[""].item()
        assert found == pytest.approx(np.mean([v / deviation[c] for v, (c, _) in zip(each, pairs, strict=True)]), rel=1e-4)
    measuring = Measuring(module)
    measuring.add({"": z.detach()}, Batch(torch.zeros(300, 3), {"": y}, {"": y}))
    assert measuring.compute() == {"mae": pytest.approx((y - z.detach()[:, 1::3]).abs().mean().item(), rel=1e-5)}


def test_learns_the_quantiles_of_the_targets():
    torch.manual_seed(0)
    y = 50 + 20 * torch.distributions.Exponential(1.0).sample((4000, 1))
    z, loss = torch.full((1, 3), 60.0, requires_grad=True), QuantileLoss(LEVELS)
    task, optimizer = loss.refine(Task("", "regression", 3)), torch.optim.Adam([z], 0.5)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / 1500)
        optimizer.zero_grad()
        output = z.expand(len(y), 3)
        loss(output, task.in_shape(y, output)).mean().backward()
        optimizer.step()
    torch.testing.assert_close(z[0].detach(), y[:, 0].quantile(torch.tensor(LEVELS)), rtol=0.01, atol=0.1)


def test_coverage_is_the_share_of_targets_at_or_below():
    y, z = torch.randn(40, 2), torch.randn(40, 6)
    module = built(QuantileLoss(LEVELS), y, 6)
    found = module.loss.measure(module, Batch(torch.zeros(40, 3), {"": y}, {"": y}), {"": z}, "test")
    assert set(found) == {"coverage_0.1", "coverage_0.5", "coverage_0.9"}
    for k, q in enumerate(LEVELS):
        torch.testing.assert_close(found[f"coverage_{q}"], (y <= z[:, k::3]).float().mean(1))
    one = built(QuantileLoss(0.9), y, 2)
    found = one.loss.measure(one, Batch(torch.zeros(40, 3), {"": y}, {"": y}), {"": z[:, :2]}, "test")
    torch.testing.assert_close(found, {"coverage": (y <= z[:, :2]).float().mean(1)})


class Own(Plugin):
    """A measure of somebody's own."""

    stage, group, option = Stage.DIAGNOSTICS, "test", "own"

    def metrics(self, task):
        return {"mse": MeanSquaredError()}


def test_refuses():
    for wrong in (0.0, 1.0, 1, "half", [], [0.9, 0.1], [0.5, 0.5], [0.1, 1.0]):
        with pytest.raises(RecipeError, match="q must be a number in"):
            QuantileLoss(wrong)
    with pytest.raises(RecipeError, match="loss=quantile is for numbers"):
        QuantileLoss().for_task(Task("", "classification", 3))
    with pytest.raises(RecipeError, match="2 values of q, and the model 3 outputs"):
        built(QuantileLoss([0.1, 0.9]), torch.randn(20, 1), 3)
    with pytest.raises(RecipeError, match="without the median: add 0.5"):
        built(QuantileLoss([0.1, 0.9]), torch.randn(20, 1), 2, [MeanAbsoluteError()])
    module = built(QuantileLoss([0.1, 0.9]), torch.randn(20, 1), 2, [Own()])
    with pytest.raises(Refusal, match="test/own measures one prediction of each number, .* add 0.5"):
        Measuring(module)
