import math

import pytest
import torch

from plugins.averaging.swa import SWA
from plugins.base import RecipeError
from plugins.scheduler.plateau import Plateau


def test_the_rule_written_out(make_optimizer):
    optimizer, losses = make_optimizer(), torch.rand(80).cumsum(0).sin().add(2).tolist()
    losses[10], losses[30] = math.nan, losses[29] * (1 - 5e-3)
    scheduler = Plateau(0.5, 2, 1e-2, 0.1)(optimizer, 0)
    best, waited, rate = math.inf, 0, 1.0
    for loss in losses:
        scheduler.step(loss)
        best, waited = (loss, 0) if loss < best * (1 - 1e-2) else (best, waited + 1)
        if waited > 2:
            rate, waited = max(0.5 * rate, 0.1), 0
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.3 * rate, 0.1 * rate])
    assert rate == pytest.approx(0.1)


def test_a_loss_below_zero_falls_where_it_is_less(make_optimizer):
    optimizer = make_optimizer()
    scheduler, rates = Plateau(0.5, 0, 0.01)(optimizer, 0), []
    for loss in (-1.0, -0.995, -1.02, -1.025, 0.0):
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"] / 0.3)
    assert rates == pytest.approx([1, 0.5, 0.5, 0.25, 0.125])


def test_goes_on_from_torchs_state(make_optimizer):
    """As checkpoints of before have it."""
    optimizer = make_optimizer()
    before = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.01)
    before.step(-1.0)
    scheduler = Plateau(0.5, 0, 0.01)(optimizer, 0)
    scheduler.load_state_dict(before.state_dict())
    scheduler.step(-0.995)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.15)


def test_a_run_goes_by_its_validation_loss_and_goes_on(problem, tmp_path):
    plateau = Plateau(0.5, 0, 0.999)  # no fall is large enough: each validation but the first halves the rate
    whole = problem.fit(steps=32, scheduler=plateau, save=(tmp_path / "half.ckpt", 16))
    rate = whole.optimizers().param_groups[0]["lr"]
    assert rate == pytest.approx(0.1 * 0.5**3)
    resumed = problem.fit(steps=32, scheduler=plateau, resume=tmp_path / "half.ckpt")
    assert resumed.optimizers().param_groups[0]["lr"] == rate
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


def test_refuses_values_out_of_range():
    with pytest.raises(RecipeError, match=r"^factor must be a number in \(0, 1\)"):
        Plateau(1.0)


def test_a_warm_up_rises_step_by_step_and_validations_count_behind_it(make_optimizer):
    optimizer = make_optimizer()
    scheduler = Plateau(0.5, 0, 0.0, 0.0, 3)(optimizer, 0)
    rates = []
    for loss in (1.0, 9.0, 9.0, 8.0, 5.0, 6.0):
        rates.append([group["lr"] for group in optimizer.param_groups])
        scheduler.count_step()
        scheduler.step(loss)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]  # the third update ends the warm-up: 9 is the first that counts, 6 no fall
    assert rates == [pytest.approx([0.3 * rate, 0.1 * rate]) for rate in expected]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.15, 0.05])


def test_the_rate_of_an_average_is_no_change_by_a_guard(problem):
    """The warm-up goes on beneath it, behind the step."""
    module = problem.fit(SWA(start=0.5, lr=0.03), steps=8, scheduler=Plateau(0.5, 0, 0.999, warmup=20))
    assert problem.log.series("swa/lr") == pytest.approx([0.03] * 4)
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(0.1 * 9 / 21)


def test_a_run_goes_on_in_its_warm_up(problem, tmp_path):
    plateau = Plateau(0.5, 0, 0.999, warmup=20)
    whole = problem.fit(steps=32, scheduler=plateau, save=(tmp_path / "half.ckpt", 16))
    resumed = problem.fit(steps=32, scheduler=plateau, resume=tmp_path / "half.ckpt")
    rates = [each.optimizers().param_groups[0]["lr"] for each in (whole, resumed)]
    assert rates[0] == rates[1] <= 0.1
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))
