import math

import numpy as np
import pytest


def follow(radam, start, gradients):
    """Algorithm 2 of Liu et al., which rectifies once ρ_t is above 5 (the paper: 4)."""
    (beta1, beta2), theta, history, rectified = radam.betas, start.copy(), [], 0
    m, v = np.zeros_like(start), np.zeros_like(start)
    most = 2 / (1 - beta2) - 1
    for t, g in enumerate(gradients, start=1):
        if radam.decoupled_weight_decay:
            theta = theta - radam.lr * radam.weight_decay * theta
        else:
            g = g + radam.weight_decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        rho = most - 2 * t * beta2**t / (1 - beta2**t)
        step = m / (1 - beta1**t)
        if rho > 5:
            rectified += 1
            r = math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
            step = step * r * math.sqrt(1 - beta2**t) / (np.sqrt(v) + radam.eps)
        theta = theta - radam.lr * step
        history.append(theta)
    assert 0 < rectified < len(gradients)
    return np.stack(history)


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}])
def test_is_momentum_until_the_second_moment_can_be_relied_on(option, start, gradients, settings):
    radam = option("radam", **settings)
    expected = follow(radam, start, gradients)
    np.testing.assert_allclose(radam.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-9, atol=1e-11)
