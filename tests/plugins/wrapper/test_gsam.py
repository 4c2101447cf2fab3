import pytest
import torch
from torch import nn

from plugins.wrapper.gsam import GSAM, GapClosing
from plugins.wrapper.sam import SAM, SharpnessAware
from tests.plugins.wrapper.two_layers import (
    closure_of,
    flat,
    loss_and_gradient,
    moved,
    problem_of_two_layers,
    twins,
    weights_of,
)

RHO, RATE, ALPHA = 0.3, 0.1, 0.6


def test_is_the_published_decomposition():
    """The part along the gradient at the worst point stays, α of what is perpendicular to it is taken away."""
    model, x, y = problem_of_two_layers()
    start = weights_of(model)
    _, g = loss_and_gradient(model, start, x, y)
    _, worst = loss_and_gradient(model, moved(start, g, RHO / flat(g).norm()), x, y)
    g, worst = flat(g), flat(worst)
    unit = worst / worst.norm()
    perpendicular = g - (g @ unit) * unit
    optimizer = GapClosing(torch.optim.SGD(model.parameters(), lr=RATE), RHO, ALPHA)
    closure = closure_of(model, optimizer, x, y)
    optimizer.step(closure)
    found = (flat(start) - flat(weights_of(model))) / RATE
    torch.testing.assert_close(found, worst - ALPHA * perpendicular)
    torch.testing.assert_close(found @ unit, worst.norm())
    assert closure.calls == 2


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_equals_pytorch_optimizer(base):
    class Constant:
        def step(self):
            return RHO

    oracle_class = pytest.importorskip("pytorch_optimizer").GSAM
    model, twin, x, y = twins()
    ours = GapClosing(base(model.parameters(), lr=0.05), RHO, ALPHA)
    theirs = oracle_class(twin.parameters(), base(twin.parameters(), lr=0.05), twin, Constant(), alpha=ALPHA)
    for _ in range(8):
        ours.step(closure_of(model, ours, x, y))
        theirs.set_closure(nn.functional.cross_entropy, x, y)
        theirs.step()
    torch.testing.assert_close(weights_of(model), weights_of(twin))


def test_alpha_zero_is_sam_bit_for_bit(problem, weights, same):
    assert same(weights(problem.fit(GSAM(rho=0.1, alpha=0.0))), weights(problem.fit(SAM(rho=0.1))))
    assert not same(weights(problem.fit(GSAM(rho=0.1))), weights(problem.fit(SAM(rho=0.1))))


def test_logs_the_gap_of_the_losses(problem):
    problem.fit(GSAM(rho=0.1), steps=3)
    assert problem.log.series("gsam/perturbation_norm") == [pytest.approx(0.1, rel=1e-4)] * 3
    assert len(problem.log.series("gsam/sharpness")) == 3


def test_a_gradient_of_zero_is_no_nan():
    weight = nn.Parameter(torch.ones(2))
    optimizer = GapClosing(torch.optim.SGD([weight], lr=RATE), RHO, ALPHA)

    def closure():
        weight.grad = torch.zeros(2)
        return torch.tensor(0.0)

    optimizer.step(closure)
    assert torch.equal(weight, torch.ones(2)) and isinstance(optimizer, SharpnessAware)
