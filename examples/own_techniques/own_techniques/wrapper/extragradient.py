"""Extragradient steps (Korpelevich, 1976)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import OptimizerWrapper, Plugin, RecipeError, Stage, expect_nonnegative


class LookingAhead(OptimizerWrapper):
    """Updates the weights by the gradient of where a plain step would lead."""

    def __init__(self, optimizer: Optimizer, step_size: float) -> None:
        super().__init__(optimizer)
        self.step_size = step_size

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One update from two gradients on the same batch; the loss before it."""
        if self.step_size == 0:
            return super().step(closure)
        if closure is None:
            raise RecipeError("wrapper/extragradient needs two gradients a step: call optimizer.step(closure)")
        loss = closure()
        weights = [parameter for parameter in self.parameters if parameter.grad is not None]
        kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight in weights:
                weight.sub_(weight.grad, alpha=self.step_size)  # type: ignore[arg-type]
        closure()
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
        self.optimizer.step()
        return loss


class Extragradient(Plugin):
    """Look one step ahead, and take the gradient that is found there.

    θ ← θ − ε ∇J(θ − step_size · ∇J(θ)), the update made by whatever optimizer is chosen. Twice the passes.

    Args:
        step_size: of the step ahead, ≥ 0; 0 is an exact no-op, in one pass.

    Source: Korpelevich, "The extragradient method for finding saddle points and other problems", 1976.
    """

    stage = Stage.WRAPPER
    off = {"step_size": 0.0}

    def __init__(self, step_size: float = 0.01) -> None:
        expect_nonnegative("step_size", step_size)
        self.step_size = step_size

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Put the wrapper around the optimizer."""
        return LookingAhead(optimizer, self.step_size)
