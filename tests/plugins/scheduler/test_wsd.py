import numpy as np
import pytest

from plugins.base import RecipeError
from plugins.scheduler.warmup_cosine import WarmupCosine
from plugins.scheduler.wsd import WSD


def test_the_three_parts_written_out(make_optimizer, rates):
    optimizer = make_optimizer()
    got = rates(optimizer, WSD(4, 0.25, 0.1)(optimizer, 40), 45)
    expected = [0.3 * (k + 1) / 5 for k in range(4)] + [0.3] * 26
    expected += [0.3 + (0.03 - 0.3) * k / 10 for k in range(10)] + [0.03] * 5
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_before_it_falls_the_end_does_not_matter(make_optimizer, rates):
    short, long = make_optimizer(), make_optimizer()
    first, second = rates(short, WSD(5, 0.2)(short, 50), 40), rates(long, WSD(5, 0.2)(long, 500), 40)
    assert first == second


@pytest.mark.parametrize(("decay", "total"), [(0.0, 12), (1.0, 12), (1.0, 3)])
def test_the_ends_of_the_share(make_optimizer, rates, decay, total):
    optimizer = make_optimizer()
    got = np.array(rates(optimizer, WSD(4, decay)(optimizer, total), total + 4))
    assert (got >= 0).all() and (got <= 0.3 + 1e-12).all()
    if decay == 0:
        assert (got[4:total] == 0.3).all() and (got[total:] == 0).all()
    elif total > 4:
        np.testing.assert_allclose(got[4:total], 0.3 * (1 - np.arange(total - 4) / (total - 4)), rtol=1e-9)


@pytest.mark.parametrize("schedule", [WarmupCosine, WSD])
def test_steps_within_the_warm_up_are_refused(make_optimizer, schedule):
    with pytest.raises(
        RecipeError, match="scheduler.steps=80 counts the warm-up too, which has 100: set scheduler.warmup below it"
    ):
        schedule(steps=80)(make_optimizer(), 900)
    schedule(steps=101)(make_optimizer(), 900)
