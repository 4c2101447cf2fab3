from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from plugins.base import order
from plugins.clipping.norm import ClipNorm
from plugins.wrapper.gradient_centralization import GradientCentralization, centralize
from plugins.wrapper.gradient_noise import GradientNoise

SGD = partial(torch.optim.SGD, lr=0.1)
BOUND = 1e-3


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 2, 2), (2, 1, 3)])
def test_equals_pytorch_optimizer_and_tells_what_it_took(shape):
    gradient = torch.randn(shape).double()
    before, theirs = gradient.clone(), gradient.clone()
    taken = centralize(gradient)
    pytest.importorskip("pytorch_optimizer").centralize_gradient(theirs, gc_conv_only=False)
    torch.testing.assert_close(gradient, theirs)
    torch.testing.assert_close(gradient.flatten(1).sum(1), torch.zeros(shape[0]).double())
    torch.testing.assert_close(taken, (before - gradient).square().sum())


def test_the_mean_of_what_leads_into_a_unit_stays_and_biases_learn(problem):
    start, model = problem.copy(), problem.fit(GradientCentralization(), steps=5, optimizer=SGD).model
    for place in (0, 3):
        torch.testing.assert_close(model[place].weight.sum(1), start[place].weight.sum(1), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model[place].weight, start[place].weight, atol=1e-3)
    assert not torch.allclose(model[3].bias, start[3].bias, atol=1e-3)
    plain = problem.fit(steps=1, optimizer=SGD).model
    taken = [10 * (plain[place].weight - start[place].weight).detach() for place in (0, 3)]
    norm = sum(float(g.mean(1).square().sum()) * g.shape[1] for g in taken) ** 0.5
    problem.fit(GradientCentralization(), steps=1, optimizer=SGD)
    assert problem.log.series("gradient_centralization/removed") == [pytest.approx(norm, rel=1e-3)]


def test_units_of_a_single_weight_still_learn(problem):
    problem.model = nn.Sequential(nn.Linear(6, 1), nn.Linear(1, 4), nn.Linear(4, 3))
    problem.copy = lambda: problem.model
    before = problem.model[1].weight.detach().clone()
    problem.fit(GradientCentralization(), steps=2, optimizer=SGD)
    assert not torch.equal(problem.model[1].weight, before)


def test_tables_and_transposed_convolutions_are_left_alone():
    model = nn.Sequential(nn.Embedding(5, 4), nn.ConvTranspose1d(4, 3, 2), nn.Linear(4, 3))
    module, told = SimpleNamespace(model=model), []
    module.record = lambda name, value, at_once: told.append(float(value))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = [parameter.grad.clone() for parameter in model.parameters()]
    GradientCentralization().transform_gradient(module, list(model.parameters()))
    same = [torch.equal(parameter.grad, old) for parameter, old in zip(model.parameters(), before, strict=True)]
    assert same == [True, True, True, False, True]
    assert told == [pytest.approx(float((before[3] - model[2].weight.grad).norm()))]


def test_what_is_clipped_is_the_gradient_that_updates(problem):
    """Clipped before, what is left would be shorter than the bound."""
    start = problem.copy()
    model = problem.fit(GradientCentralization(), ClipNorm(BOUND), steps=1, optimizer=SGD).model
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    length = torch.cat([(after - before).detach().double().flatten() for after, before in pairs]).norm() / 0.1
    assert float(length) == pytest.approx(BOUND, rel=1e-2)
    names = [plugin.option for plugin in order([GradientNoise(), ClipNorm(), GradientCentralization()])]
    assert names == ["gradient_centralization", "norm", "gradient_noise"]
