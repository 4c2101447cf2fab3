import numpy as np
import pytest

from plugins.scheduler.inverse_sqrt import InverseSqrt


@pytest.mark.parametrize("timescale", [1, 4, 9])
def test_is_the_lectures_decay(make_optimizer, rates, timescale):
    """η / √(t/N) from t = N on, and never more than η."""
    optimizer = make_optimizer()
    got = np.array(rates(optimizer, InverseSqrt(timescale)(optimizer, 0), 40))
    t = np.arange(1, 41)
    lecture = 0.3 / np.sqrt(t / timescale)
    np.testing.assert_allclose(got[timescale - 1 :], lecture[timescale - 1 :], rtol=1e-12)
    np.testing.assert_allclose(got[:timescale], 0.3, rtol=1e-12)


def test_with_a_warm_up_it_falls_like_transformers_models(make_optimizer, rates):
    """Vaswani et al.: the rate goes with min(t^−½, t · w^−1.5)."""
    optimizer, w = make_optimizer(), 16
    got = np.array(rates(optimizer, InverseSqrt(w, warmup=w)(optimizer, 0), 80))
    t = np.arange(1, 81)
    np.testing.assert_allclose(got, 0.3 * np.sqrt(w) * np.minimum(t**-0.5, t * w**-1.5), rtol=1e-12)
    np.testing.assert_allclose(got[3 * w] / got[3 * w + 20], np.sqrt((3 * w + 21) / (3 * w + 1)), rtol=1e-12)


@pytest.mark.parametrize("warmup", [1, 2, 10])
@pytest.mark.parametrize("timescale", [1, 4])
def test_any_warm_up_ends_at_the_full_rate(make_optimizer, rates, timescale, warmup):
    optimizer = make_optimizer()
    got = np.array(rates(optimizer, InverseSqrt(timescale, warmup=warmup)(optimizer, 0), 30))
    np.testing.assert_allclose(got[:warmup], 0.3 * np.arange(1, warmup + 1) / warmup, rtol=1e-12)
    np.testing.assert_allclose(got[warmup:], 0.3 / np.sqrt(1 + np.arange(1, 31 - warmup) / timescale), rtol=1e-12)
