import numpy as np


def test_is_algorithm_8_4(option, start, gradients):
    adagrad = option("adagrad")
    theta, r, expected = start.copy(), np.zeros_like(start), []
    for g in gradients:
        r = r + g * g
        theta = theta - adagrad.lr / (adagrad.eps + np.sqrt(r)) * g
        expected.append(theta)
    np.testing.assert_allclose(adagrad.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-11, atol=1e-13)


def test_the_small_constant_is_the_lectures(option):
    assert option("adagrad").eps == 1e-7
