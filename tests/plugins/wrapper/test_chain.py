"""Wrappers around wrappers: each takes its gradient from the one around it, so the whole is the composition of the formulas."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.base import OptimizerWrapper, RecipeError
from plugins.wrapper.sam import SharpnessAware


class Ahead(OptimizerWrapper):
    """The gradient of where a plain step leads."""

    def __init__(self, optimizer, size):
        super().__init__(optimizer)
        self.size = size

    def gradients(self, closure):
        loss = closure()
        kept = [weight.detach().clone() for weight in self.parameters]
        with torch.no_grad():
            for weight in self.parameters:
                weight -= self.size * weight.grad
        closure()
        with torch.no_grad():
            for weight, before in zip(self.parameters, kept, strict=True):
                weight.copy_(before)
        return loss


class Signed(OptimizerWrapper):
    """The sign of the gradient."""

    def gradients(self, closure):
        loss = closure()
        for weight in self.parameters:
            weight.grad.sign_()
        return loss


def ahead(gradient, size=0.3):
    return lambda w: gradient(w - size * gradient(w))


def worst(gradient, rho=0.5):
    return lambda w: gradient(w + rho * gradient(w) / gradient(w).norm())


def signed(gradient):
    return lambda w: gradient(w).sign()


KINDS = {
    "ahead": (lambda optimizer: Ahead(optimizer, 0.3), ahead),
    "worst": (lambda optimizer: SharpnessAware(optimizer, 0.5), worst),
    "signed": (Signed, signed),
}


@pytest.mark.parametrize("order", list(itertools.permutations(KINDS, 2)) + list(itertools.permutations(KINDS)), ids="-".join)
@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam])
def test_is_the_composition_of_the_formulas(order, base):
    """The outermost wrapper stands last: its gradient is what all within are made of."""
    matrix = torch.randn(5, 5, dtype=torch.float64)
    ours = nn.Parameter(torch.randn(5, dtype=torch.float64))
    theirs = nn.Parameter(ours.detach().clone())

    def loss(w):
        return functional.softplus(matrix @ w).sum() + (w**4).sum() / 10

    def gradient(w):
        w = w.detach().requires_grad_()
        return torch.autograd.grad(loss(w), w)[0]

    optimizer, reference, formula = base([ours], lr=0.02), base([theirs], lr=0.02), gradient
    for name in order:
        optimizer = KINDS[name][0](optimizer)
    for name in reversed(order):
        formula = KINDS[name][1](formula)

    def closure():
        optimizer.zero_grad()
        value = loss(ours)
        value.backward()
        return value

    for _ in range(5):
        before = loss(ours).detach()
        assert torch.equal(optimizer.step(closure).detach(), before)
        theirs.grad = formula(theirs)
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_without_a_closure_there_is_no_gradient_of_ones_own():
    optimizer = OptimizerWrapper(SharpnessAware(torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1), 0.5))
    with pytest.raises(RecipeError, match=r"^SharpnessAware needs gradients of its own: call optimizer.step\(closure\)$"):
        optimizer.step()
