import pytest
import torch

from plugins.regularizer.elastic_net import ElasticNet, elastic_net
from plugins.regularizer.l1 import L1Penalty
from plugins.regularizer.l2 import L2Penalty


def test_value_and_gradient():
    weights = [torch.randn(4, 3, requires_grad=True), torch.randn(2, 3, 3, 3, requires_grad=True)]
    value = elastic_net(weights, 0.3, 0.7)
    torch.testing.assert_close(value, sum(0.3 * w.norm(1) + 0.7 * w.norm(2) ** 2 for w in weights))
    for gradient, weight in zip(torch.autograd.grad(value, weights), weights, strict=True):
        torch.testing.assert_close(gradient, 0.3 * weight.sign() + 1.4 * weight)


def test_is_that_of_the_lecture():
    w, strength, share = torch.randn(6, 5), 0.2, 0.4  # λ R(W) with R(W) = β‖W‖² + ‖W‖
    regularized = strength * (share * torch.linalg.matrix_norm(w) ** 2 + w.abs().sum())
    torch.testing.assert_close(elastic_net([w], strength, strength * share), regularized)


def test_trains_as_both_penalties(problem, weights):
    both = weights(problem.fit(L1Penalty(0.02), L2Penalty(0.06), steps=3))
    ours = weights(problem.fit(ElasticNet(0.02, 0.03), steps=3))
    for name, value in both.items():
        torch.testing.assert_close(ours[name], value)
    assert problem.log.series("elastic_net/penalty")
    for alone, strengths in ((L1Penalty(0.02), (0.02, 0.0)), (L2Penalty(0.06), (0.0, 0.03))):
        one, other = weights(problem.fit(alone, steps=2)), weights(problem.fit(ElasticNet(*strengths), steps=2))
        for name, value in one.items():
            torch.testing.assert_close(other[name], value)


@pytest.mark.parametrize("strengths", [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1)])
def test_is_off_where_both_are(strengths):
    assert ElasticNet(*strengths).is_off == (strengths == (0, 0))
