import numpy as np


def test_is_adam_with_decay_apart_from_the_gradient(option, start, gradients):
    adamw = option("adamw")
    (rho1, rho2), theta, expected = adamw.betas, start.copy(), []
    s, r = np.zeros_like(start), np.zeros_like(start)
    for t, g in enumerate(gradients, start=1):
        s = rho1 * s + (1 - rho1) * g
        r = rho2 * r + (1 - rho2) * g * g
        step = s / (1 - rho1**t) / (np.sqrt(r / (1 - rho2**t)) + adamw.eps)
        theta = theta - adamw.lr * adamw.weight_decay * theta - adamw.lr * step
        expected.append(theta)
    np.testing.assert_allclose(adamw.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-11, atol=1e-13)


def test_without_decay_it_is_adam(option, start, gradients):
    def run(name):
        return option(name, weight_decay=0.0).run(start, lambda _, k: gradients[k], len(gradients))

    np.testing.assert_array_equal(run("adamw"), run("adam"))
