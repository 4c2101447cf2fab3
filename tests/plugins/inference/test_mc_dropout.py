import copy
from functools import partial

import pytest
import torch
from scipy import stats
from torch import nn

from plugins.base import Batch, RecipeError, Setting, Task
from plugins.inference.mc_dropout import MCDropout
from plugins.regularizer.dropout import Dropout
from recipes.module import RecipeModule


def net():
    """Running statistics far from those of a batch: whether batch norm is in evaluation mode is plain to see."""
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 5))
    with torch.no_grad():
        model(5 * torch.randn(32, 6) + 3)
    return model


def build(model, *plugins, kind="classification"):
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.build(plugins, Setting((6,), (Task("", kind, 5),)), devices=1)
    return module


def passes(model, x, samples):
    """Outputs with dropout drawn, and all else in evaluation mode, written out."""
    linear, norm, _, dropout, last = model
    for _ in range(samples):
        h = nn.functional.relu(norm.eval()(linear(x)))
        keep = torch.empty_like(h).bernoulli_(1 - dropout.p)
        yield last(h * keep / (1 - dropout.p))


def test_mean_of_the_probabilities_of_stochastic_passes():
    model, x, plugin = net(), torch.randn(30, 6), MCDropout(samples=200)
    module = build(model, plugin)
    model.eval()
    predicted = plugin.predict(module, x)[""]
    torch.testing.assert_close(predicted.sum(1), torch.ones(30))
    written = torch.stack([out.softmax(1) for out in passes(copy.deepcopy(model), x, 5000)])
    error = written.std(0) * (1 / 200 + 1 / 5000) ** 0.5
    assert ((predicted - written.mean(0)).abs() < 7 * error + 1e-4).all()
    one = MCDropout(samples=1).predict(module, x)[""]
    assert not torch.equal(one, model(x).softmax(1))  # dropout is on,
    assert not any(part.training for part in model.modules())  # and off again
    model[3].p = 0.0
    torch.testing.assert_close(plugin.predict(module, x)[""], model(x).softmax(1))


def test_a_regression_gets_the_mean_of_outputs():
    model, x, plugin = net(), torch.randn(30, 6), MCDropout(samples=300)
    module = build(model, plugin, kind="regression")
    model.eval()
    written = torch.stack(list(passes(copy.deepcopy(model), x, 5000)))
    error = written.std(0) * (1 / 300 + 1 / 5000) ** 0.5
    predicted = plugin.predict(module, x)[""]
    assert ((predicted - written.mean(0)).abs() < 7 * error + 1e-4).all()
    y = torch.randn(30, 5)
    assert plugin.measure(module, Batch(x, {"": y}, {"": y}), {"": predicted}, "test") == {}


def test_entropy_equals_scipy():
    plugin, p = MCDropout(), torch.rand(20, 5).softmax(1)
    p[0] = torch.tensor([1.0, 0, 0, 0, 0])
    module = build(net(), plugin)
    y = torch.randint(5, (20,))
    logs = {"": p.clamp_min(torch.finfo(p.dtype).tiny).log()}  # what the engine makes of predictions
    entropies = plugin.measure(module, Batch(torch.randn(20, 6), {"": y}, {"": y}), logs, "val")["entropy"]
    torch.testing.assert_close(entropies, torch.tensor(stats.entropy(p.numpy(), axis=1)), atol=1e-5, rtol=0)


def test_validation_uses_the_mean_and_training_stays_as_it_is(problem, weights, same):
    plain = problem.fit(Dropout(p=0.5))
    module = problem.fit(Dropout(p=0.5), MCDropout(samples=7))
    assert same(weights(plain), weights(module))
    assert 0 < module.metrics["val/entropy"] <= torch.log(torch.tensor(3.0))
    assert module.metrics["val/loss"] != plain.metrics["val/loss"]
    assert problem.fit(Dropout(p=0.5), MCDropout(samples=7)).metrics["val/loss"] == module.metrics["val/loss"]


def test_refuses_a_model_without_dropout_and_names_the_fix():
    with pytest.raises(RecipeError, match=r"Linear has none: train with \+regularizer=dropout"):
        build(nn.Linear(6, 5), MCDropout())


def test_refuses():
    with pytest.raises(RecipeError, match="samples must be a whole number ≥ 1"):
        MCDropout(samples=0)
