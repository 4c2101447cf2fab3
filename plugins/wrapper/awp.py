"""Adversarial weight perturbation (Wu et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Named, Selection, declare
from plugins.shards import norms, parts
from plugins.wrapper._worst_nearby import MovedUphill, WorstNearby

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def perturb_layers(weights: Sequence[Tensor], gamma: float) -> Float[Tensor, ""]:
    """Add γ · ‖w‖₂ · g / ‖g‖₂ to each weight by itself, in place; uses the gradients up. The norm of what was added."""
    gradients: list[Tensor] = [weight.grad for weight in weights]  # type: ignore[misc]
    lengths = norms(gradients)
    scales = gamma * norms(weights) / (lengths + 1e-12)
    for gradient, scale in zip(parts(gradients), scales, strict=True):
        gradient.mul_(scale)
    torch._foreach_add_(parts(weights), parts(gradients))
    return (scales * lengths).norm()


class LayersPerturbed(MovedUphill):
    """An optimizer that updates the weights by the gradient taken where each layer has moved uphill, by a share of its own norm."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        super().__init__(optimizer)
        self.gamma = gamma

    def perturb(self, weights: Sequence[Tensor]) -> Tensor:
        """See :func:`perturb_layers`."""
        placed = self.placed()
        moved = [weight for weight in weights if id(weight) in placed]
        return perturb_layers(moved, self.gamma) if moved else torch.zeros((), device=self.parameters[0].device)


class AWP(WorstNearby):
    """Train where inputs and weights are perturbed adversarially, which lessens robust overfitting.

    θ ← θ − ε ∇J(θ + v) with v = γ ‖w‖₂ · g / ‖g‖₂ for each weight w of several dimensions by itself, g = ∇J(θ), and v = 0 for the rest. The
    samples are those of the attack that is chosen beside it (`+adversarial=pgd`), made once a step at θ; without one they are
    clean. Both gradients see the same batch and the same dropout masks. Costs twice the forward and backward passes of the
    update, and the attack once.

    Raises:
        Refusal: precision 16-mixed; another technique that moves the weights to the worst point nearby.

    Source: Wu, Xia & Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020.
    """

    gamma: float = declare.number(
        "length by which each weight is moved, as a share of its norm", default=0.01, least=0, off=0.0
    )

    def make(self, optimizer: Optimizer) -> LayersPerturbed:
        """The wrapper."""
        return LayersPerturbed(optimizer, self.gamma)

    def stands_out(self, named: Named) -> bool:
        """Whether a parameter is moved."""
        return named.kind == "weight" and named.parameter.ndim > 1

    def check(self, selection: Selection) -> None:
        """Refuse what all of this kind do; remark that there is no attack."""
        super().check(selection)
        attacked = selection.has("adversarial")
        self.remarks = [] if attacked else ["weights are perturbed for clean samples; with +adversarial=pgd for attacked ones"]
