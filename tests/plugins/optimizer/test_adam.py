import numpy as np


def test_is_algorithm_8_7(option, start, gradients):
    adam = option("adam")
    (rho1, rho2), theta, expected = adam.betas, start.copy(), []
    s, r = np.zeros_like(start), np.zeros_like(start)
    for t, g in enumerate(gradients, start=1):
        s = rho1 * s + (1 - rho1) * g
        r = rho2 * r + (1 - rho2) * g * g
        unbiased_s, unbiased_r = s / (1 - rho1**t), r / (1 - rho2**t)
        theta = theta - adam.lr * unbiased_s / (np.sqrt(unbiased_r) + adam.eps)
        expected.append(theta)
    np.testing.assert_allclose(adam.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-11, atol=1e-13)


def test_defaults_are_the_suggested_ones(option):
    adam = option("adam")
    assert adam.lr == 0.001 and adam.betas == [0.9, 0.999] and adam.eps == 1e-8
