"""Sharpness-aware minimization that looks for the worst point every k steps (Liu et al., 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import declare
from plugins.shards import kept_like, norms, parts
from plugins.wrapper._worst_nearby import WorstNearby
from plugins.wrapper.gsam import component
from plugins.wrapper.sam import SharpnessAware


@torch.no_grad()
def new_directions(gradients: Sequence[Tensor], first: Sequence[Tensor]) -> list[Tensor]:
    """v = gₚ − (gₚ · g / ‖g‖²) g of the gradients gₚ at the worst point, and g, `first`, those before; over all tensors together."""
    share = component(gradients, first)
    directions = [gradient.clone() for gradient in gradients]
    torch._foreach_sub_(parts(directions), torch._foreach_mul(parts(first), share))
    return directions


@torch.no_grad()
def follow(gradients: Sequence[Tensor], directions: Sequence[Tensor], alpha: float) -> None:
    """g ← g + α · ‖g‖₂ / ‖v‖₂ · v, in place, with norms over all tensors together."""
    scale = alpha * norms(gradients).norm() / (norms(directions).norm() + 1e-12)
    torch._foreach_add_(parts(gradients), torch._foreach_mul(parts(directions), scale))


class Looking(SharpnessAware):
    """An optimizer that finds the way to flat places in every k-th step, and keeps to it in those between.

    `steps` are those done; `directions` the ways kept, by the place of their parameter in `parameters`. Both are in the state.
    """

    keeps_first = True

    def __init__(self, optimizer: Optimizer, rho: float, k: int, alpha: float) -> None:
        super().__init__(optimizer, rho)
        self.k, self.alpha = k, alpha
        self.steps = 0
        self.directions: dict[int, Tensor] = {}

    def combine(self, weights: Sequence[Tensor], first: Sequence[Tensor]) -> None:
        """Keep the way; see :func:`new_directions`."""
        places = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        found = new_directions([weight.grad for weight in weights], first)  # type: ignore[misc]
        self.directions = {places[id(weight)]: direction for weight, direction in zip(weights, found, strict=True)}

    def gradients(self, closure: Callable[[], Tensor]) -> Tensor:
        """The gradient at the worst point, or the one here led along the way that is kept."""
        if self.steps % self.k == 0:
            return super().gradients(closure)
        loss = closure()
        kept = [
            (parameter.grad, self.directions[place])
            for place, parameter in enumerate(self.parameters)
            if parameter.grad is not None and place in self.directions
        ]
        if kept:
            follow([gradient for gradient, _ in kept], [direction for _, direction in kept], self.alpha)
        self.perturbation_norm = self.sharpness = None
        return loss

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one update, and count it."""
        loss = super().step(closure)
        self.steps += 1
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state, and what is kept here."""
        return {**super().state_dict(), "looksam": {"steps": self.steps, "directions": dict(self.directions)}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; what is kept is kept like its parameters."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "looksam"})
        own, parameters = state_dict.get("looksam", {"steps": 0, "directions": {}}), self.parameters
        self.steps = own["steps"]
        self.directions = {place: kept_like(value, parameters[place]) for place, value in own["directions"].items()}


class LookSAM(WorstNearby):
    """Seek flat places as sam does, and look for the way to them in every k-th step only.

    Every k-th step, from the first on, is that of sam, θ ← θ − ε gₚ with gₚ = ∇J(θ + ρ g / ‖g‖₂) and g = ∇J(θ), and keeps
    v = gₚ − (gₚ · g / ‖g‖²) g, which changes slowly; those between take θ ← θ − ε (g + α ‖g‖₂ / ‖v‖₂ · v), with norms over all
    parameters together. Both gradients of a step see the same batch and the same dropout masks. Costs (k + 1) / k times the forward and
    backward passes, and memory for one gradient; v is in the checkpoint.

    Raises:
        Refusal: precision 16-mixed; another technique that moves the weights to the worst point nearby.

    Source: Liu, Mai, Chen, Hsieh & You, "Towards Efficient and Scalable Sharpness-Aware Minimization", CVPR 2022, algorithm 1.
    """

    k: int = declare.count("steps from one look to the next", default=5, more="1 is sam.")
    rho: float = declare.number("radius of the ball in which the worst point lies", default=0.05, least=0, off=0.0)
    alpha: float = declare.number("length of v in the steps between, as a share of the gradient's", default=0.7, least=0)

    def make(self, optimizer: Optimizer) -> Looking:
        """The wrapper."""
        return Looking(optimizer, self.rho, self.k, self.alpha)
