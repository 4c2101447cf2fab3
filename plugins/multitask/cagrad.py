"""Conflict-averse gradient descent (Liu et al., 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from plugins.base import Module, declare
from plugins.multitask._aggregated import Aggregated
from plugins.multitask._solving import Array, norms, shortest, solved

if TYPE_CHECKING:
    from jaxtyping import Float

LEAST = 1e-4  # ‖g_w‖ as a share of the longest gradient: inner products of 32 bits tell no less


def cagrad_weights(products: Float[Tensor, "tasks tasks"], c: float) -> Float[Tensor, " tasks"]:
    """The weights of d = g₀ + (c ‖g₀‖ / ‖g_w‖) g_w, with g₀ the mean and w, of w ≥ 0 and Σ wᵢ = 1, that with the least g_w·g₀ + c ‖g₀‖ ‖g_w‖.

    ‖g_w‖ is the least (‖g_w‖² / η + η) / 2 over η > 0. For each η the best w is that of the shortest mean of gᵢ + (η / c‖g₀‖) g₀, and of the
    best η it is known that η = ‖g_w‖: one equation in one unknown, with one solution.
    """
    return solved(products, lambda given: _weights(given, c))


def _weights(products: Array, c: float) -> Array:
    from scipy.optimize import brentq

    mean = np.full(len(products), 1 / len(products))
    inner = products @ mean
    square, longest = max(float(mean @ inner), 0.0), norms(products).max()
    radius = c * np.sqrt(square)
    if radius <= 1e-12 * longest:
        return mean

    def best(length: float) -> Array:
        share = length / radius
        return shortest(products + share * np.add.outer(inner, inner) + share**2 * square)

    def excess(length: float) -> float:
        weights = best(length)
        return float(length - np.sqrt(max(float(weights @ products @ weights), 0.0)))

    least = LEAST * longest
    length = least if excess(least) >= 0 else brentq(excess, least, 2 * longest)
    found: Array = mean + radius / length * best(length)
    return found


class CAGrad(Aggregated):
    """Learn several targets by the gradient near their mean that helps most the task that it helps least.

    g = argmax minᵢ gᵢ·d over ‖d − g₀‖ ≤ c ‖g₀‖, with g₀ = 1/m Σᵢ gᵢ of m tasks: g = g₀ + (c ‖g₀‖ / ‖g_w‖) g_w, where g_w = Σᵢ wᵢ gᵢ is the one with
    the least g_w·g₀ + c ‖g₀‖ ‖g_w‖ of wᵢ ≥ 0, Σ wᵢ = 1. With c < 1 it comes to rest where the mean of the losses does; c = 0 is the mean, and with
    c → ∞ the direction is that of `mgda`. It acts on the parameters that tasks share; a head gets the gradient of its own task, and the gradient
    of penalties is added beside, with the weight 1. One task alone equals the plain run bit for bit. Costs one backward pass a task, an entry a
    shared parameter and task, and a wait for the GPU.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs.

    Source: Liu, Liu, Jin, Stone & Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021.
    """

    c: float = declare.number(
        "how far from the mean, as a share of its norm", default=0.5, least=0.0, note="0: the mean itself"
    )

    def weights(self, products: Tensor, module: Module) -> Tensor:
        """Those of the mean, and those of the worst case on top."""
        return cagrad_weights(products, self.c)
