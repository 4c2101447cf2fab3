"""Multi-task learning as a bargaining game (Navon et al., 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from plugins.base import Module
from plugins.multitask._aggregated import Aggregated
from plugins.multitask._solving import Array, of_units, solved

if TYPE_CHECKING:
    from jaxtyping import Float

RIDGE = 1e-6  # added to the squares of unit gradients: where gradients cancel each other there is no solution without
ROUNDS = 1000


def nash_weights(products: Float[Tensor, "tasks tasks"]) -> Float[Tensor, " tasks"]:
    """The weights w > 0 with wᵢ · gᵢ·g = s for all tasks, g = Σⱼ wⱼ gⱼ, where s = ‖G‖ (Frobenius) is as large as the gradients are.

    Up to the scale, G α = 1/α: α minimizes ½ αᵀGα − Σ log αᵢ, which is convex, by Newton's method with the steps of Nesterov & Nemirovskii.
    """
    return solved(products, _weights)


def _weights(products: Array) -> Array:
    unit, scale = of_units(products)  # of a gradient twice as long α is half as large
    unit = unit + RIDGE * np.eye(len(unit))
    found = np.ones(len(unit))
    for _ in range(ROUNDS):
        slope = unit @ found - 1 / found
        step = np.linalg.solve(unit + np.diag(found**-2), slope)
        decrement = np.sqrt(max(float(slope @ step), 0.0))
        found = found - step / (1 + decrement if decrement > 0.25 else 1)
        if decrement < 1e-9:
            break
    weights: Array = np.where(products.diagonal() > 0, found / scale, 0.0) * np.sqrt(np.linalg.norm(products))
    return weights


class NashMTL(Aggregated):
    """Learn several targets by the gradient that their bargaining agrees on.

    g = Σᵢ αᵢ gᵢ with α > 0 and GᵀG α = 1/α: of all directions of a length the one with the largest Π gᵢ·g, the Nash bargaining solution, in which no task
    gains by the scale of its loss: of a gradient twice as long α is half as large. The solution says nothing of the length; as in the authors' code
    it is found for GᵀG divided by its Frobenius norm, so that g is as long as gradients are; `+clipping=norm` bounds it. Where gradients cancel
    each other, g is 0. It acts on the parameters that tasks share; a head gets the gradient of its own task, and the gradient of penalties is added beside,
    with the weight 1. One task alone equals the plain run bit for bit. Costs one backward pass a task, an entry a shared parameter and task,
    and a wait for the GPU.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs.

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022.
    """

    def weights(self, products: Tensor, module: Module) -> Tensor:
        """Those of the bargaining solution."""
        return nash_weights(products)
