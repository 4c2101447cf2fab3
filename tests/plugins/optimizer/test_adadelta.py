import numpy as np


def test_is_algorithm_1_of_zeiler(option, start, gradients):
    adadelta = option("adadelta")
    theta, expected = start.copy(), []
    squares, steps = np.zeros_like(start), np.zeros_like(start)
    for g in gradients:
        squares = adadelta.rho * squares + (1 - adadelta.rho) * g**2
        change = -np.sqrt(steps + adadelta.eps) / np.sqrt(squares + adadelta.eps) * g
        steps = adadelta.rho * steps + (1 - adadelta.rho) * change**2
        theta = theta + adadelta.lr * change
        expected.append(theta)
    np.testing.assert_allclose(adadelta.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-11, atol=1e-13)


def test_rate_one_is_the_paper(option):
    assert option("adadelta").lr == 1
