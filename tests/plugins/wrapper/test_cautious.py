import copy

import pytest
import torch
from torch import nn

from plugins.base import Refusal, Selection, Setting, check_selection
from plugins.clipping.norm import ClipNorm
from plugins.optimizer.adafactor import Adafactor
from plugins.optimizer.adan import Adan
from plugins.optimizer.lion import Lion
from plugins.optimizer.muon import Muon
from plugins.optimizer.soap import SOAP
from plugins.wrapper.cautious import Cautious, CautiousUpdates, agreeing, kept_by_decay
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


def decoupled_by_library(parameters, **settings):
    return pytest.importorskip("pytorch_optimizer").AdaBelief(parameters, weight_decouple=True, **settings)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, Muon, Lion, SOAP, decoupled_by_library])
def test_where_all_disagrees_the_decay_alone_is_left(kind):
    if kind in (Lion, SOAP):
        pytest.importorskip(kind.package)
    weight = nn.Parameter(torch.randn(4, 3).double())
    optimizer = Cautious(kind([weight], lr=0.1, weight_decay=0.5))
    for sign in (1.0, 1.0, -1e-6):  # the first one of SOAP makes no step
        weight.grad = torch.full((4, 3), sign).double()
        before = weight.detach().clone()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), before * 0.95)
    assert optimizer.agreement == 0


def test_the_decay_of_adafactor_is_no_part_of_what_disagrees():
    """Without momentum nothing disagrees, though the decay is larger than the update, and leads the other way."""
    weights = [nn.Parameter(torch.full((4, 3), 3.0)) for _ in range(2)]
    cautious, plain = Cautious(Adafactor(weights[:1], weight_decay=50.0)), Adafactor(weights[1:], weight_decay=50.0)
    for optimizer, weight in zip((cautious, plain), weights, strict=True):
        weight.grad = -torch.ones(4, 3)
        optimizer.step()
    assert cautious.agreement == 1 and torch.equal(*weights)


def test_the_decay_of_adan_is_none_to_first_order():
    pytest.importorskip("timm")
    weights = [nn.Parameter(torch.full((4, 3), 3.0).double()) for _ in range(2)]
    optimizers = Cautious(Adan(weights[:1], lr=1e-3, weight_decay=10.0)), Adan(weights[1:], lr=1e-3, weight_decay=10.0)
    for optimizer, weight in zip(optimizers, weights, strict=True):
        weight.grad = -torch.ones(4, 3).double()
        optimizer.step()
    assert optimizers[0].agreement == 1
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("kind", [Lion, Adafactor])
def test_what_is_told_of_the_decay_comes_back_with_a_checkpoint(kind):
    if kind is Lion:
        pytest.importorskip("timm")
    one, other = (kind([nn.Parameter(torch.ones(2, 2))], weight_decay=0.5) for _ in range(2))
    other.load_state_dict(one.state_dict())
    assert kept_by_decay(other.param_groups[0]) == pytest.approx(1 - one.param_groups[0]["lr"] * 0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_counts_and_compares_exactly_in_few_bits(dtype):
    small = torch.full((70_001,), 1e-5).to(dtype)
    mask, count = agreeing(small, small)
    assert mask.dtype == dtype and mask.all() and int(count) == 70_001
    assert agreeing(small, -small)[1] == 0


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
