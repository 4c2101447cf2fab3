import numpy as np
import pytest


def follow(nadam, start, gradients):
    """Dozat's algorithm 2 with his schedule of momentum, μ_t = β₁ (1 − 0.96^(t ψ) / 2)."""
    (beta1, beta2), theta, history = nadam.betas, start.copy(), []
    m, v, product = np.zeros_like(start), np.zeros_like(start), 1.0
    for t, g in enumerate(gradients, start=1):
        if not nadam.decoupled_weight_decay:
            g = g + nadam.weight_decay * theta
        mu, next_mu = (beta1 * (1 - 0.5 * 0.96 ** (step * nadam.momentum_decay)) for step in (t, t + 1))
        product *= mu
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        mean = next_mu * m / (1 - product * next_mu) + (1 - mu) * g / (1 - product)
        decay = nadam.lr * nadam.weight_decay * theta if nadam.decoupled_weight_decay else 0.0
        theta = theta - decay - nadam.lr * mean / (np.sqrt(v / (1 - beta2**t)) + nadam.eps)
        history.append(theta)
    return np.stack(history)


@pytest.mark.parametrize(
    "settings", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"momentum_decay": 0.5}]
)
def test_is_adam_with_the_velocity_of_the_next_step(option, start, gradients, settings):
    nadam = option("nadam", **settings)
    expected = follow(nadam, start, gradients)
    np.testing.assert_allclose(
        nadam.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-6, atol=1e-8
    )  # torch keeps the product of momenta in 32 bits
