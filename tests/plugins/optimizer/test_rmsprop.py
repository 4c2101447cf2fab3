import numpy as np


def follow(rmsprop, start, gradients, divisor):
    theta, r, history = start.copy(), np.zeros_like(start), []
    for g in gradients:
        r = rmsprop.alpha * r + (1 - rmsprop.alpha) * g * g
        theta = theta - rmsprop.lr / divisor(r) * g
        history.append(theta)
    return np.stack(history)


def test_is_algorithm_8_5_but_for_the_place_of_the_small_constant(option, start, gradients):
    rmsprop = option("rmsprop")
    expected = follow(rmsprop, start, gradients, lambda r: np.sqrt(r) + rmsprop.eps)
    np.testing.assert_allclose(rmsprop.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-11, atol=1e-13)


def test_the_small_constant_hardly_matters_where_gradients_are_large(option, start, gradients):
    # The book has it inside the root, √(δ + r).
    rmsprop = option("rmsprop")
    gradients = np.sign(gradients) * (1 + np.abs(gradients))
    book = follow(rmsprop, start, gradients, lambda r: np.sqrt(r + rmsprop.eps))
    np.testing.assert_allclose(rmsprop.run(start, lambda _, k: gradients[k], len(gradients)), book, atol=1e-8)
