"""Extragradient steps (Korpelevich, 1976)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import OptimizerWrapper, Plugin, Refusal, Selection, Stage, declare


class LookingAhead(OptimizerWrapper):
    """Updates the weights by the gradient of where a plain step would lead."""

    def __init__(self, optimizer: Optimizer, step_size: float) -> None:
        super().__init__(optimizer)
        self.step_size = step_size

    def gradients(self, closure: Callable[[], Tensor]) -> Tensor:
        """The gradient one step ahead."""
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
        return loss


class Extragradient(Plugin):
    """Look one step ahead, and take the gradient that is found there.

    θ ← θ − ε ∇J(θ − step_size · ∇J(θ)), the update made by whatever optimizer is chosen. Twice the passes.

    Source: Korpelevich, "The extragradient method for finding saddle points and other problems", 1976.
    """

    stage = Stage.WRAPPER

    step_size: float = declare.number("of the step ahead", default=0.01, least=0, off=0.0)

    def check(self, selection: Selection) -> None:
        """Refuse loss scaling: the step ahead would be longer by the scale."""
        if selection.precision == "16-mixed":
            raise Refusal(f"{self.state_key} cannot use scaled gradients: take trainer.precision=bf16-mixed")

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Put the wrapper around the optimizer."""
        return LookingAhead(optimizer, self.step_size)
