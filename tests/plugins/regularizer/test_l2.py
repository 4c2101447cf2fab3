import copy

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.finetuning.freeze import Freeze
from plugins.loss.by_task import LossByTask
from plugins.regularizer._norms import absolute_sum, soft_threshold, square_sum
from plugins.regularizer.elastic_net import ElasticNet
from plugins.regularizer.l1 import L1Penalty
from plugins.regularizer.l2 import L2Penalty, l2_penalty
from plugins.regularizer.norm_ball import NormBall
from recipes.engine.module import RecipeModule


def fit(model, data, *plugins, steps=4, loss=None, optimizer=lambda groups: torch.optim.SGD(groups, 0.1), **arguments):
    model = copy.deepcopy(model)
    module = RecipeModule(model, loss or LossByTask(), optimizer, **arguments)
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=list(plugins), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, 8))
    return model


@pytest.fixture
def data():
    return TensorDataset(torch.randn(32, 5), torch.randint(3, (32,)))


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.PReLU(), nn.Linear(6, 3))


def test_complex_weights_count_by_their_absolute_values():
    w = torch.randn(40, 3, dtype=torch.complex64)
    torch.testing.assert_close(square_sum([w]), w.abs().square().sum())
    torch.testing.assert_close(absolute_sum([w]), w.abs().sum())
    torch.testing.assert_close(soft_threshold(w, 0.5), w / w.abs() * (w.abs() - 0.5).clamp_min(0))


def test_value_and_gradient():
    weights = [torch.randn(4, 3, requires_grad=True), torch.randn(2, 3, 3, 3, requires_grad=True)]
    penalty = l2_penalty(weights, 0.3)
    torch.testing.assert_close(penalty, 0.15 * sum((w**2).sum() for w in weights))
    for gradient, weight in zip(torch.autograd.grad(penalty, weights), weights, strict=True):
        torch.testing.assert_close(gradient, 0.3 * weight)


def test_scales_the_weights_in_each_step_and_nothing_else(model, data):
    trained = fit(model, data, L2Penalty(0.5), loss=lambda output, target: 0 * output.sum(), steps=4)
    for index in (0, 3):
        torch.testing.assert_close(trained[index].weight, (1 - 0.1 * 0.5) ** 4 * model[index].weight)
    for name, parameter in trained.named_parameters():
        if name not in ("0.weight", "3.weight"):
            assert torch.equal(parameter, model.get_parameter(name))


@pytest.mark.parametrize("parts", [1, 2])
def test_equals_the_weight_decay_of_plain_sgd(model, data, parts):
    def with_decay(groups):
        decayed = [p for group in groups for p in group["params"] if p.ndim > 1]
        rest = [p for group in groups for p in group["params"] if p.ndim == 1]
        return torch.optim.SGD([{"params": decayed, "weight_decay": 0.2}, {"params": rest}], 0.1)

    ours, theirs = fit(model, data, L2Penalty(0.2), parts=parts), fit(model, data, optimizer=with_decay, parts=parts)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(ours[0].weight, fit(model, data, parts=parts)[0].weight, atol=1e-3)


@pytest.mark.parametrize(
    "penalty",
    [
        L2Penalty(0.5),
        L1Penalty(0.5),
        L1Penalty(0.5, proximal=True),
        ElasticNet(0.5, 0.5),
        NormBall(0.1),
        NormBall(0.1, scope="all"),
    ],
)
def test_where_no_weight_is_trained_there_is_nothing_to_pull(problem, weights, same, penalty):
    frozen = problem.fit(Freeze(["*"], train_norm=True), steps=2)
    found = problem.fit(Freeze(["*"], train_norm=True), penalty, steps=2)
    assert same(weights(found), weights(frozen)) and not same(weights(found), weights(problem.model))
