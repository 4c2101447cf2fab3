import numpy as np


def test_is_algorithm_8_1(option, start, gradients):
    sgd = option("sgd")
    theta, expected = start.copy(), []
    for g in gradients:
        theta = theta - sgd.lr * g
        expected.append(theta)
    np.testing.assert_allclose(sgd.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-12, atol=1e-13)


def test_weight_decay_is_off_until_asked_for(option, start):
    no_gradient = np.zeros_like(start)
    assert (option("sgd").run(start, lambda *_: no_gradient, 5) == start).all()
    decayed = option("sgd", weight_decay=0.1)
    np.testing.assert_allclose(decayed.run(start, lambda *_: no_gradient, 5)[-1], start * (1 - decayed.lr * 0.1) ** 5)
