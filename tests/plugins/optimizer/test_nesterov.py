import numpy as np


def test_is_algorithm_8_3_seen_from_the_point_where_the_gradient_is_taken(option, start):
    nesterov = option("nesterov")
    scale = np.random.default_rng().uniform(0.5, 5, size=start.shape)

    def gradient(theta, step=0):
        return scale * np.tanh(theta)

    # The book keeps θ and takes the gradient at θ + αv; torch keeps φ = θ + αv.
    theta, v, expected = start.copy(), np.zeros_like(start), []
    for _ in range(30):
        g = gradient(theta + nesterov.momentum * v)
        v = nesterov.momentum * v - nesterov.lr * g
        theta = theta + v
        expected.append(theta + nesterov.momentum * v)
    np.testing.assert_allclose(nesterov.run(start, gradient, 30), expected, rtol=1e-9)


def test_differs_from_plain_momentum(option, start):
    plain = option("nesterov", nesterov=False).run(start, lambda theta, _: theta, 3)
    assert not np.allclose(option("nesterov").run(start, lambda theta, _: theta, 3), plain)
