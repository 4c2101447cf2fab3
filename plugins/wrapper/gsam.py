"""Sharpness-aware minimization that closes the surrogate gap (Zhuang et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import declare
from plugins.shards import parts, product
from plugins.wrapper._worst_nearby import WorstNearby
from plugins.wrapper.sam import SharpnessAware

if TYPE_CHECKING:
    from jaxtyping import Float


def component(first: Sequence[Tensor], gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The share c with which c · g is the part of f along g: f · g / ‖g‖², over all tensors together; 0 where g is."""
    square = product(gradients, gradients)
    return product(first, gradients) / square.clamp_min(torch.finfo(square.dtype).tiny)


@torch.no_grad()
def close_gap(gradients: Sequence[Tensor], first: Sequence[Tensor], alpha: float) -> None:
    """g ← g − α · (f − c g), in place: α of what of f, `first`, is perpendicular to g is taken away."""
    share = component(first, gradients)
    torch._foreach_mul_(parts(gradients), 1 + alpha * share)
    torch._foreach_add_(parts(gradients), parts(first), alpha=-alpha)


class GapClosing(SharpnessAware):
    """An optimizer that updates by the gradient at the worst point, without raising the loss there to lower it here."""

    keeps_first = True

    def __init__(self, optimizer: Optimizer, rho: float, alpha: float) -> None:
        super().__init__(optimizer, rho)
        self.alpha = alpha

    def combine(self, weights: Sequence[Tensor], first: Sequence[Tensor]) -> None:
        """See :func:`close_gap`."""
        close_gap([weight.grad for weight in weights], first, self.alpha)  # type: ignore[misc]


class GSAM(WorstNearby):
    """Seek flat places as sam does, and bring the loss at the worst point nearby closer to the one in the middle.

    θ ← θ − ε (gₚ − α g⊥) with gₚ = ∇J(θ + ρ g / ‖g‖₂), g = ∇J(θ) and g⊥ the part of g that is perpendicular to gₚ, over all parameters
    together: it lowers the gap between both losses, logged as `sharpness`, and leaves that of the worst point as it is. Both
    gradients see the same batch and the same dropout masks. Costs twice the forward and backward passes. Its source lets ρ fall with
    the learning rate; here it is constant.

    Raises:
        Refusal: precision 16-mixed; another technique that moves the weights to the worst point nearby.

    Source: Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training", ICLR 2022.
    """

    rho: float = declare.number("radius of the ball in which the worst point lies", default=0.05, least=0, off=0.0)
    alpha: float = declare.number("share of the perpendicular part that is taken away", default=0.4, least=0, more="0 is sam.")

    def make(self, optimizer: Optimizer) -> GapClosing:
        """The wrapper."""
        return GapClosing(optimizer, self.rho, self.alpha)
