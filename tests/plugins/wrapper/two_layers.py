"""A small problem in double precision, its closure and its gradient anywhere."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call


def problem_of_two_layers(bias=True):
    model = nn.Sequential(nn.Linear(5, 7, bias=bias), nn.Tanh(), nn.Linear(7, 3, bias=bias)).double()
    return model, torch.randn(9, 5).double(), torch.randint(3, (9,))


def twins(bias=True):
    """Two models of the same weights, and their data."""
    model, x, y = problem_of_two_layers(bias)
    twin, _, _ = problem_of_two_layers(bias)
    twin.load_state_dict(model.state_dict())
    return model, twin, x, y


def closure_of(model, optimizer, x, y):
    """What the engine hands to an optimizer; `closure.calls` are the passes so far."""

    def closure():
        closure.calls += 1
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss.detach()

    closure.calls = 0
    return closure


def weights_of(model):
    """Copies of the parameters, in their order."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def loss_and_gradient(model, weights, x, y):
    """Loss and gradient of the model with other weights."""
    weights = [weight.detach().clone().requires_grad_() for weight in weights]
    names = [name for name, _ in model.named_parameters()]
    loss = nn.functional.cross_entropy(functional_call(model, dict(zip(names, weights, strict=True)), (x,)), y)
    return loss.detach(), list(torch.autograd.grad(loss, weights))


def flat(tensors):
    """All numbers as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def moved(weights, steps, size=1.0):
    """w + size · step, one by one."""
    return [weight + size * step for weight, step in zip(weights, steps, strict=True)]
