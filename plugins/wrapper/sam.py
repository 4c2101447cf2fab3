"""Sharpness-aware minimization (Foret et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from plugins.base import Module, OptimizerWrapper, Plugin, RecipeError, Refusal, Selection, Stage, declare
from plugins.shards import part, parts, whole

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def perturb(weights: Sequence[Tensor], rho: float) -> Float[Tensor, ""]:
    """Add ρ · g / ‖g‖₂ to the weights, in place, with ‖g‖₂ over all of them; uses the gradients up. The norm of what was added."""
    gradients: list[Tensor] = [weight.grad for weight in weights]  # type: ignore[misc]
    norm = whole(get_total_norm(gradients))
    scale = rho / (norm + 1e-12)
    torch._foreach_mul_(parts(gradients), scale)
    torch._foreach_add_(parts(weights), parts(gradients))
    return scale * norm


class SharpnessAware(OptimizerWrapper):
    """An optimizer that updates the weights by the gradient taken at the worst point nearby.

    After a step `perturbation_norm` and `sharpness` (the loss there minus the loss here) are scalar tensors.
    """

    def __init__(self, optimizer: Optimizer, rho: float) -> None:
        super().__init__(optimizer)
        self.rho = rho
        self.perturbation_norm: Tensor | None = None
        self.sharpness: Tensor | None = None

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one update from two gradients; the loss before it."""
        if closure is None:
            raise RecipeError("wrapper/sam needs two gradients a step: call optimizer.step(closure)")
        loss = closure()
        weights: list[Tensor] = [parameter for parameter in self.parameters if parameter.grad is not None]
        # Copies, and not a subtraction afterwards, so that not one bit is lost.
        kept = [part(weight.detach()).clone() for weight in weights]
        self.perturbation_norm = perturb(weights, self.rho)
        worst = closure()
        with torch.no_grad():
            torch._foreach_copy_(parts(weights), kept)
        self.sharpness = worst.detach() - loss.detach()
        self.optimizer.step()
        return loss


class SAM(Plugin):
    """Seek weights whose whole neighbourhood has a low loss: minimize the loss at the worst point within a ball.

    θ ← θ − ε ∇J(θ + ρ g / ‖g‖₂) with g = ∇J(θ), the update made by whatever optimizer is chosen. Both gradients see the
    same batch and the same dropout masks. Costs twice the forward and backward passes.

    Raises:
        Refusal: precision 16-mixed, where gradients are scaled and may overflow before the first of them is used.

    Source: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021.
    """

    stage = Stage.WRAPPER
    on_shards = True

    rho: float = declare.number("radius of the ball in which the worst point lies", default=0.05, least=0, off=0.0)

    def check(self, selection: Selection) -> None:
        """Refuse loss scaling."""
        if selection.precision == "16-mixed":
            raise Refusal(
                "wrapper/sam cannot use the scaled gradients of trainer.precision=16-mixed: take bf16-mixed or 32-true"
            )

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Put the wrapper around the optimizer."""
        self.wrapper = SharpnessAware(optimizer, self.rho)
        return self.wrapper

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Log the size of the perturbation and what it did to the loss."""
        if self.wrapper.perturbation_norm is not None and self.wrapper.sharpness is not None:
            self.record(module, "perturbation_norm", self.wrapper.perturbation_norm)
            self.record(module, "sharpness", self.wrapper.sharpness)
