"""What the tests of attacks share."""

from torch import nn


def loss_of(net, y):
    """The loss of a network as a function of its inputs."""
    return lambda x: nn.functional.cross_entropy(net(x), y)


def gradient_of(net, x, y):
    """The gradient of that loss at x."""
    x = x.clone().requires_grad_()
    loss_of(net, y)(x).backward()
    return x.grad
