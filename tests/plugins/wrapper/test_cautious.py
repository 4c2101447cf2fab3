import copy

import pytest
import torch
from torch import nn

from plugins.base import Refusal, Selection, Setting, check_selection
from plugins.clipping.norm import ClipNorm
from plugins.optimizer.muon import Muon
from plugins.wrapper.cautious import Cautious, CautiousUpdates
from plugins.wrapper.sam import SharpnessAware
from tests.plugins.wrapper.two_layers import (
    closure_of,
    flat,
    loss_and_gradient,
    moved,
    problem_of_two_layers,
    twins,
    weights_of,
)


def one_line(weights, updates, gradients, rate):
    """The published line: m = (u · g > 0); p.add_(u · m / max(m.mean(), 0.001), alpha=−lr)."""
    for weight, u, g in zip(weights, updates, gradients, strict=True):
        mask = (u * g > 0).to(g.dtype)
        weight.add_(u * mask / max(float(mask.mean()), 1e-3), alpha=-rate)


@pytest.mark.parametrize("sam", ["none", "outside", "inside"])
def test_is_the_published_line_on_momentum(sam):
    """With sam it is the last gradient that is compared, in whatever order they wrap."""
    model, x, y = problem_of_two_layers()
    weights = weights_of(model)
    velocity = [torch.zeros_like(weight) for weight in weights]
    inner = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    cautious = Cautious(SharpnessAware(inner, 0.5) if sam == "inside" else inner)
    optimizer = SharpnessAware(cautious, 0.5) if sam == "outside" else cautious
    shares = []
    for _ in range(12):
        _, g = loss_and_gradient(model, weights, x, y)
        if sam != "none":
            _, g = loss_and_gradient(model, moved(weights, g, 0.5 / flat(g).norm()), x, y)
        velocity = [0.9 * v + part for v, part in zip(velocity, g, strict=True)]
        one_line(weights, velocity, g, 0.3)
        optimizer.step(closure_of(model, optimizer, x, y))
        torch.testing.assert_close(weights_of(model), weights, rtol=1e-6, atol=1e-9)
        shares.append(float((flat(velocity) * flat(g) > 0).double().mean()))
        assert float(cautious.agreement) == pytest.approx(shares[-1])
    assert min(shares) < 0.95


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_equals_timm_with_adamw_whose_decay_stays(decay):
    oracle = pytest.importorskip("timm.optim.adamw").AdamWLegacy
    model, twin, x, y = twins()
    ours = Cautious(torch.optim.AdamW(model.parameters(), lr=0.05, betas=(0.9, 0.99), weight_decay=decay))
    theirs = oracle(twin.parameters(), lr=0.05, betas=(0.9, 0.99), weight_decay=decay, caution=True)
    for step in range(12):
        targets = (y + step) % 3  # so that momentum is often wrong
        ours.step(closure_of(model, ours, x, targets))
        theirs.step(closure_of(twin, theirs, x, targets))
        assert step < 1 or float(ours.agreement) < 1
        torch.testing.assert_close(weights_of(model), weights_of(twin), rtol=1e-6, atol=1e-9)


def test_nothing_of_a_plain_step_is_taken_back():
    model, twin, x, y = twins()
    ours, theirs = Cautious(torch.optim.SGD(model.parameters(), lr=0.1)), torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        closure = closure_of(model, ours, x, y)
        ours.step(closure)
        theirs.step(closure_of(twin, theirs, x, y))
        assert closure.calls == 1
    assert all(map(torch.equal, weights_of(model), weights_of(twin)))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, Muon])
def test_where_all_disagrees_the_decay_alone_is_left(kind):
    weight = nn.Parameter(torch.randn(4, 3).double())
    optimizer = Cautious(kind([weight], lr=0.1, weight_decay=0.5))
    for sign in (1.0, -1e-6):
        weight.grad = torch.full((4, 3), sign).double()
        before = weight.detach().clone()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), before * 0.95)
    assert optimizer.agreement == 0


def test_parameters_without_a_gradient_stay():
    model, x, y = problem_of_two_layers()
    unused = nn.Parameter(torch.randn(3).double())
    before = copy.deepcopy(unused)
    model[0].requires_grad_(False)
    frozen = weights_of(model[0])
    optimizer = Cautious(torch.optim.SGD([*model.parameters(), unused], lr=0.1, momentum=0.9))
    optimizer.step(closure_of(model, optimizer, x, y))
    assert torch.equal(unused, before) and all(map(torch.equal, weights_of(model[0]), frozen))


def test_trains_and_logs_beside_clipping(problem, weights, same):
    module = problem.fit(CautiousUpdates(), ClipNorm(0.1))
    shares = problem.log.series("cautious/agreement")
    assert len(shares) == 8 and min(shares) < 1 and max(shares) <= 1
    assert not same(weights(module), weights(problem.fit(ClipNorm(0.1))))


def test_refuses_an_optimizer_that_keeps_an_average():
    with pytest.raises(Refusal, match="schedule_free: its steps lead towards an average too"):
        check_selection(Selection([CautiousUpdates()], Setting((5,), ()), chosen=frozenset({"optimizer/schedule_free"})))
