import numpy as np
import pytest
from torch.optim.lr_scheduler import LinearLR

from plugins.base import RecipeError
from plugins.scheduler.linear import LinearDecay


@pytest.mark.parametrize("steps", [None, 12])
def test_is_the_lectures_formula(make_optimizer, rates, steps):
    optimizer, total = make_optimizer(rates=(0.3, 0.1)), 20
    tau = steps or total
    got = rates(optimizer, LinearDecay(end_factor=0.05, steps=steps)(optimizer, total), 30)
    alphas = [min(1, k / tau) for k in range(30)]
    np.testing.assert_allclose(got, [(1 - a) * 0.3 + a * 0.05 * 0.3 for a in alphas], rtol=1e-12)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.05 * 0.1)


def test_equals_torch(make_optimizer, rates):
    ours, torchs = make_optimizer(), make_optimizer()
    expected = rates(torchs, LinearLR(torchs, start_factor=1.0, end_factor=0.01, total_iters=17), 25)
    np.testing.assert_allclose(rates(ours, LinearDecay()(ours, 17), 25), expected, rtol=1e-9)


def test_goes_on_after_a_checkpoint(make_optimizer, rates):
    whole, first, second = make_optimizer(), make_optimizer(), make_optimizer()
    expected = rates(whole, LinearDecay()(whole, 20), 20)
    scheduler = LinearDecay()(first, 20)
    assert rates(first, scheduler, 8) == expected[:8]
    resumed = LinearDecay()(second, 20)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert rates(second, resumed, 12) == expected[8:]


def test_a_training_without_end_needs_steps(make_optimizer):
    with pytest.raises(RecipeError, match="set scheduler.steps, max_epochs or max_steps"):
        LinearDecay()(make_optimizer(), 0)
    LinearDecay(steps=5)(make_optimizer(), 0)
