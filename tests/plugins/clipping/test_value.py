import math

import pytest
import torch

from plugins.base import RecipeError
from plugins.clipping.value import ClipValue, clip_value
from tests.plugins.clipping.test_norm import gradients, parameters_with_gradients


@pytest.mark.parametrize("largest", [0.1, 1.0, 50.0])
def test_equals_torch(largest):
    ours, torchs = parameters_with_gradients(), parameters_with_gradients()
    for one, other in zip(ours, torchs, strict=True):
        other.grad = None if one.grad is None else one.grad.clone()
    norm = torch.nn.utils.get_total_norm(gradients(ours))
    torch.nn.utils.clip_grad_value_(torchs, largest)
    before, after = clip_value(ours, largest)
    assert all(torch.equal(one, other) for one, other in zip(gradients(ours), gradients(torchs), strict=True))
    torch.testing.assert_close(before, norm)
    torch.testing.assert_close(after, torch.nn.utils.get_total_norm(gradients(torchs)))
    assert ours[-1].grad is None


def test_numbers_that_are_none():
    parameters = parameters_with_gradients()
    parameters[0].grad[0] = torch.tensor([math.nan, math.inf, -math.inf])
    clip_value(parameters, 1.0)
    torch.testing.assert_close(parameters[0].grad[0], torch.tensor([math.nan, 1.0, -1.0]), equal_nan=True)
    assert clip_value([torch.nn.Parameter(torch.ones(2))], 1.0)[0] == 0


def test_the_update_is_bounded_and_no_bound_trains_the_same_bits(problem, weights, same):
    module = problem.fit(ClipValue(0.01), steps=1, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    moved = [p - q for p, q in zip(module.model.parameters(), problem.copy().parameters(), strict=True)]
    assert max(float(each.detach().abs().max()) for each in moved) == pytest.approx(0.001, rel=1e-3)
    assert problem.log.series("value/before")[0] > problem.log.series("value/after")[0] > 0
    assert same(weights(problem.fit(ClipValue(math.inf))), weights(problem.fit()))
    with pytest.raises(RecipeError, match="^max must be"):
        ClipValue(0.0)
