import math

import numpy as np
import pytest
import torch
from torch import nn

from plugins.clipping.norm import ClipNorm, clip_norm


def parameters_with_gradients(scale=1.0):
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in [(4, 3), (5,), (2, 2, 2)]]
    for parameter in parameters:
        parameter.grad = scale * torch.randn_like(parameter)
    return [*parameters, nn.Parameter(torch.zeros(3))]  # the last one has no gradient


def gradients(parameters):
    return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize("max_norm", [0.3, 2.0, 100.0])
def test_equals_the_formula_and_torch(max_norm):
    parameters = parameters_with_gradients()
    before = gradients(parameters)
    norm = math.sqrt(sum((g.double().numpy() ** 2).sum() for g in before))
    twins = [nn.Parameter(torch.zeros_like(g)) for g in before]
    for twin, gradient in zip(twins, before, strict=True):
        twin.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(twins, max_norm)
    logged = clip_norm(parameters, max_norm)
    after = gradients(parameters)
    for got, torchs, gradient in zip(after, twins, before, strict=True):
        np.testing.assert_allclose(got, gradient * min(1, max_norm / norm), rtol=1e-5)
        torch.testing.assert_close(got, torchs.grad)
    assert float(logged[0]) == pytest.approx(norm, rel=1e-5)
    assert float(logged[1]) == pytest.approx(min(norm, max_norm), rel=1e-5)
    assert parameters[-1].grad is None


@pytest.mark.parametrize("value", [1.0, math.inf, math.nan])
def test_no_bound_changes_no_bit(value):
    parameters = parameters_with_gradients()
    parameters[0].grad[0, 0] = value
    before = gradients(parameters)
    clip_norm(parameters, math.inf)
    assert all(got.equal(g) for got, g in zip(gradients(parameters)[1:], before[1:], strict=True))
    np.testing.assert_array_equal(gradients(parameters)[0], before[0])


def test_no_gradient_at_all():
    norm, _ = clip_norm([nn.Parameter(torch.ones(2))], 1.0)
    assert norm == 0


def test_the_update_is_bounded_and_both_norms_are_recorded(problem):
    rate, bound = 0.1, 0.01
    module = problem.fit(ClipNorm(bound), steps=1, optimizer=lambda groups: torch.optim.SGD(groups, lr=rate))
    moved = [p - q for p, q in zip(module.model.parameters(), problem.copy().parameters(), strict=True)]
    assert float(torch.nn.utils.get_total_norm(moved)) == pytest.approx(rate * bound, rel=1e-3)
    assert problem.log.series("norm/before")[0] > bound
    assert problem.log.series("norm/after") == [pytest.approx(bound)]


def test_no_bound_trains_the_same_bits(problem, weights, same):
    assert same(weights(problem.fit(ClipNorm(math.inf))), weights(problem.fit()))
    assert not same(weights(problem.fit(ClipNorm(0.01))), weights(problem.fit()))
