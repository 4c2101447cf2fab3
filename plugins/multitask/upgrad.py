"""Unconflicting projections of gradients (Quinton & Rey, 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from plugins.base import Module
from plugins.multitask._aggregated import Aggregated
from plugins.multitask._solving import Array, of_units, root, solved

if TYPE_CHECKING:
    from jaxtyping import Float


def upgrad_weights(products: Float[Tensor, "tasks tasks"]) -> Float[Tensor, " tasks"]:
    """The weights w of 1/m Σᵢ π(gᵢ) = Σⱼ wⱼ gⱼ, with π the projection onto the cone of what conflicts with no gradient.

    π(gᵢ) = gᵢ + Σⱼ vⱼ gⱼ with v ≥ 0 that makes its norm least, a problem of non-negative least squares in as many unknowns as tasks:
    min ‖A v + A eᵢ‖ with AᵀA = G. Inner products that are not finite give NaN.
    """
    return solved(products, _weights)


def _weights(products: Array) -> Array:
    from scipy.optimize import nnls

    unit, scale = of_units(products)  # tasks whose gradients differ by orders of magnitude: unit gradients have the same cone
    columns, one = root(unit), np.eye(len(unit))
    found = sum((one[task] + nnls(columns, -columns[:, task])[0]) * scale[task] for task in range(len(unit)))
    weights: Array = found / scale / len(unit)
    return weights


class UPGrad(Aggregated):
    """Learn several targets by a gradient that conflicts with that of no task.

    g = 1/m Σᵢ π(gᵢ) for m tasks, where π projects onto {x: x·gⱼ ≥ 0 for all j}, so that a small step raises the loss of no task. It
    acts on the parameters that tasks share; a head gets the gradient of its own task. Without a conflict it is the mean, while
    `equal` and `pcgrad` take the sum. One task alone equals the plain run bit for bit. Costs one backward pass a task, an
    entry a shared parameter and task, and a wait for the GPU.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs.

    Source: Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization", 2024.
    """

    def weights(self, products: Tensor, module: Module) -> Tensor:
        """The mean of the projections."""
        return upgrad_weights(products)
