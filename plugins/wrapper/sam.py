"""Sharpness-aware minimization (Foret et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from plugins.base import declare
from plugins.shards import parts, whole
from plugins.wrapper._worst_nearby import MovedUphill, WorstNearby

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


class SharpnessAware(MovedUphill):
    """An optimizer that updates the weights by the gradient taken at the worst point of a ball."""

    def __init__(self, optimizer: Optimizer, rho: float) -> None:
        super().__init__(optimizer)
        self.rho = rho

    def perturb(self, weights: Sequence[Tensor]) -> Tensor:
        """See :func:`perturb`."""
        return perturb(weights, self.rho)


class SAM(WorstNearby):
    """Seek weights whose whole neighbourhood has a low loss: minimize the loss at the worst point within a ball.

    θ ← θ − ε ∇J(θ + ρ g / ‖g‖₂) with g = ∇J(θ), the update made by whatever optimizer is chosen. Both gradients see the
    same batch and the same dropout masks. Costs twice the forward and backward passes.

    Raises:
        Refusal: precision 16-mixed, where gradients are scaled and may overflow before the first of them is used; another technique of
            this kind.

    Source: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021.
    """

    rho: float = declare.number("radius of the ball in which the worst point lies", default=0.05, least=0, off=0.0)

    def make(self, optimizer: Optimizer) -> SharpnessAware:
        """The wrapper."""
        return SharpnessAware(optimizer, self.rho)
