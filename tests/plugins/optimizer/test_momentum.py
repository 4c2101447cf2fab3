import numpy as np
import torch


def test_is_algorithm_8_2(option, start, gradients):
    momentum = option("momentum")
    theta, v, expected = start.copy(), np.zeros_like(start), []
    for g in gradients:
        v = momentum.momentum * v - momentum.lr * g
        theta = theta + v
        expected.append(theta)
    np.testing.assert_allclose(momentum.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-11, atol=1e-13)


def test_dampening_as_large_as_momentum_makes_a_running_average(option, start, gradients):
    momentum = option("momentum", dampening=0.9)
    theta, expected = start.copy(), []
    v = gradients[0]  # torch starts the average with the first gradient, not with (1 − β) of it
    for step, g in enumerate(gradients):
        if step > 0:
            v = 0.9 * v + (1 - 0.9) * g
        theta = theta - momentum.lr * v
        expected.append(theta)
    np.testing.assert_allclose(momentum.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-11, atol=1e-13)


def test_a_new_rate_acts_on_the_whole_velocity(option, start, gradients):
    # The book has the rate inside v, torch outside: after a change of rate they differ, and this is what we have.
    momentum = option("momentum")
    weights = torch.nn.Parameter(torch.tensor(start))
    optimizer = momentum.kind([weights], **momentum.values)
    for rate in (momentum.lr, momentum.lr / 10):
        optimizer.param_groups[0]["lr"] = rate
        weights.grad = torch.tensor(gradients[0])
        optimizer.step()
    expected = start - momentum.lr * gradients[0] - momentum.lr / 10 * (1 + momentum.momentum) * gradients[0]
    np.testing.assert_allclose(weights.detach().numpy(), expected, rtol=1e-11, atol=1e-13)
