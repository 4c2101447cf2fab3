"""Adaptive sharpness-aware minimization (Kwon et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from plugins.base import Named, declare
from plugins.shards import parts, whole
from plugins.wrapper._worst_nearby import MovedUphill, WorstNearby

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def perturb_adaptively(weights: Sequence[Tensor], scaled: Sequence[bool], rho: float, eta: float) -> Float[Tensor, ""]:
    """Add ρ · T²g / ‖Tg‖₂ to the weights, in place, T = |w| + η where `scaled`, else 1; uses the gradients up. The norm of what was added."""
    gradients: list[Tensor] = [weight.grad for weight in weights]  # type: ignore[misc]

    def scale() -> Tensor:
        for weight, gradient, is_scaled in zip(parts(weights), parts(gradients), scaled, strict=True):
            if is_scaled:
                gradient.mul_(weight.abs().add_(eta))
        norm: Tensor = whole(get_total_norm(gradients))
        return norm

    torch._foreach_mul_(parts(gradients), rho / (scale() + 1e-12))
    norm = scale()
    torch._foreach_add_(parts(weights), parts(gradients))
    return norm


class AdaptivelySharpnessAware(MovedUphill):
    """An optimizer that updates the weights by the gradient at the worst point of a neighbourhood that is as large as they are."""

    def __init__(self, optimizer: Optimizer, rho: float, eta: float) -> None:
        super().__init__(optimizer)
        self.rho, self.eta = rho, eta

    def perturb(self, weights: Sequence[Tensor]) -> Tensor:
        """See :func:`perturb_adaptively`."""
        scaled = self.placed()
        return perturb_adaptively(weights, [id(weight) in scaled for weight in weights], self.rho, self.eta)


class ASAM(WorstNearby):
    """Seek flat places, measured in proportion to each weight, so that layers of other scale but the same function are alike.

    θ ← θ − ε ∇J(θ + ρ T²g / ‖Tg‖₂) with g = ∇J(θ) and T = |θ| + η, number by number, of weights and the scales of norm layers;
    of biases T = 1. Both gradients see the same batch and the same dropout masks. Costs twice the forward and backward passes.

    Raises:
        Refusal: precision 16-mixed; another technique that moves the weights to the worst point nearby.

    Source: Kwon, Kim, Park & Choi, "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
    Networks", ICML 2021.
    """

    rho: float = declare.number(
        "radius of the neighbourhood, as a share of the weights",
        default=0.5,
        least=0,
        off=0.0,
        more="About ten times that of sam.",
    )
    eta: float = declare.number(
        "η, added to the absolute value of each weight, so that one of zero moves too", default=0.01, least=0
    )

    def make(self, optimizer: Optimizer) -> AdaptivelySharpnessAware:
        """The wrapper."""
        return AdaptivelySharpnessAware(optimizer, self.rho, self.eta)

    def stands_out(self, named: Named) -> bool:
        """Whether a parameter is measured by its own size."""
        return named.kind != "bias" and "bias" not in named.name.rpartition(".")[2]
