import math

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from plugins.base import RecipeError
from plugins.optimizer.muon import Muon
from plugins.scheduler.one_cycle import OneCycle


def wave(start, end, share):
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def expected_cycle(low, peak, end, steps, warmup):
    top = warmup * steps - 1
    return [wave(low, peak, k / top) if k <= top else wave(peak, end, (k - top) / (steps - 1 - top)) for k in range(steps)]


def test_is_the_formula_for_rate_and_momentum(make_optimizer, rates):
    steps = 40
    optimizer = make_optimizer(rates=(0.3, 0.1), momentum=0.9)
    got = rates(optimizer, OneCycle(warmup=0.4, start_factor=0.1, end_factor=0.001)(optimizer, steps), steps)
    np.testing.assert_allclose(got, expected_cycle(0.03, 0.3, 0.0003, steps, 0.4), rtol=1e-9)
    optimizer = make_optimizer(rates=(0.3, 0.1), momentum=0.9)
    momentum = rates(optimizer, OneCycle(warmup=0.4)(optimizer, steps), steps, group=1, key="momentum")
    np.testing.assert_allclose(momentum, expected_cycle(0.95, 0.85, 0.95, steps, 0.4), rtol=1e-9)


@pytest.mark.parametrize("key", ["lr", "betas"])
def test_defaults_equal_torch(make_optimizer, rates, key):
    ours, torchs = make_optimizer(torch.optim.Adam), make_optimizer(torch.optim.Adam)
    theirs = OneCycleLR(torchs, max_lr=[0.3, 0.1], total_steps=31)
    expected = rates(torchs, theirs, 31, key=key)
    np.testing.assert_allclose(rates(ours, OneCycle()(ours, 31), 31, key=key), expected, rtol=1e-9)


@pytest.mark.parametrize(("kind", "key"), [(torch.optim.SGD, "momentum"), (torch.optim.RMSprop, "momentum")])
def test_an_optimizer_without_momentum_stays_without(make_optimizer, rates, kind, key):
    optimizer = make_optimizer(kind)
    assert set(rates(optimizer, OneCycle()(optimizer, 20), 20, key=key)) == {0}


def test_momentum_stays_when_told_so(make_optimizer, rates):
    optimizer = make_optimizer(momentum=0.7)
    assert set(rates(optimizer, OneCycle(cycle_momentum=False)(optimizer, 20), 20, key="momentum")) == {0.7}


def test_an_optimizer_that_knows_no_momentum_is_fine(make_optimizer, rates):
    optimizer = make_optimizer(torch.optim.Adagrad)
    assert max(rates(optimizer, OneCycle()(optimizer, 20), 20)) == pytest.approx(0.3, rel=0.02)


def test_holds_the_final_rate(make_optimizer, rates):
    optimizer = make_optimizer()
    got = rates(optimizer, OneCycle(end_factor=0.0, steps=10)(optimizer, 99), 15)
    assert got[9:] == [0.0] * 6


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0, 0.1, 0.5, 1])
def test_every_length_is_possible(make_optimizer, rates, steps, warmup):
    optimizer = make_optimizer(momentum=0.9)
    got = rates(optimizer, OneCycle(warmup=warmup)(optimizer, steps), steps)
    assert all(0 <= rate <= 0.3 * 1.000001 for rate in got)


def test_goes_on_after_a_checkpoint(make_optimizer, rates):
    whole, first, second = (make_optimizer(momentum=0.9) for _ in range(3))
    expected = rates(whole, OneCycle()(whole, 20), 20)
    scheduler = OneCycle()(first, 20)
    assert rates(first, scheduler, 8) == expected[:8]
    resumed = OneCycle()(second, 20)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert rates(second, resumed, 12) == expected[8:]


def test_momentum_moves_beside_the_first_beta_and_goes_on_after_a_checkpoint(make_optimizer, rates):
    whole, first, second = (make_optimizer(Muon) for _ in range(3))
    expected = expected_cycle(0.95, 0.85, 0.95, 20, 0.4)
    got = rates(whole, OneCycle(warmup=0.4)(whole, 20), 20, group=1, key="momentum")
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert whole.param_groups[1]["betas"][0] == pytest.approx(0.95)
    scheduler = OneCycle(warmup=0.4)(first, 20)
    assert rates(first, scheduler, 8, key="momentum") == pytest.approx(expected[:8])
    resumed = OneCycle(warmup=0.4)(second, 20)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert rates(second, resumed, 12, key="momentum") == pytest.approx(expected[8:])
    without = make_optimizer(Muon, momentum=0.0)
    assert set(rates(without, OneCycle()(without, 20), 20, key="momentum")) == {0}


def test_a_single_step_is_not_the_end(make_optimizer, rates):
    optimizer = make_optimizer(momentum=0.9)
    assert 0.15 < rates(optimizer, OneCycle()(optimizer, 1), 1)[0] <= 0.3


def test_a_finished_cycle_goes_on_in_a_longer_one():
    """Resumed for twice the steps, the rate is where a training of that length has it, not held at the end."""
    weight = torch.nn.Parameter(torch.zeros(2))
    short = OneCycle()(torch.optim.SGD([weight], lr=1.0, momentum=0.9), 10)
    for _ in range(12):
        short.optimizer.step()
        short.step()
    longer = OneCycle()(torch.optim.SGD([weight], lr=1.0, momentum=0.9), 40)
    longer.load_state_dict(short.state_dict())
    whole = OneCycle()(torch.optim.SGD([weight], lr=1.0, momentum=0.9), 40)
    for _ in range(13):
        whole.optimizer.step()
        whole.step()
    longer.optimizer.step()
    longer.step()
    assert longer.optimizer.param_groups[0]["lr"] == pytest.approx(whole.optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("name", ["base_momentum", "max_momentum"])
def test_a_momentum_of_1_is_refused(name):
    """Adam divides by one minus its power."""
    with pytest.raises(RecipeError, match=name):
        OneCycle(**{name: 1.0})
