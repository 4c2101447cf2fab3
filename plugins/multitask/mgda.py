"""The multiple gradient descent algorithm (Désidéri, 2012; Sener & Koltun, 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from plugins.base import Module
from plugins.multitask._aggregated import Aggregated
from plugins.multitask._solving import Array, shortest, solved

if TYPE_CHECKING:
    from jaxtyping import Float


def mgda_weights(products: Float[Tensor, "tasks tasks"]) -> Float[Tensor, " tasks"]:
    """The weights w ≥ 0, Σ wᵢ = 1, with the shortest Σ wᵢ gᵢ; of two tasks w₁ = (g₂ − g₁)·g₂ / ‖g₁ − g₂‖², put into [0, 1].

    A gradient that is 0 gets no weight where others are not.
    """
    return solved(products, _weights)


def _weights(products: Array) -> Array:
    given = products.diagonal() > 0
    if not given.any():
        return shortest(products)
    weights = np.zeros(len(products))
    weights[given] = shortest(products[np.ix_(given, given)])
    return weights


class MGDA(Aggregated):
    """Learn several targets by the shortest of all weighted means of their gradients.

    g = Σᵢ wᵢ gᵢ with w = argmin ‖Σᵢ wᵢ gᵢ‖² over wᵢ ≥ 0, Σ wᵢ = 1. A small step lowers the loss of each task by as much as any other, at least
    ‖g‖², and g is 0 where no step helps all of them. Found exactly, for any number of tasks. The task with the shortest gradient weighs most, so
    losses of other scales change it. A task whose gradient is 0, as of a step in which it has no known label, has no say. It acts on the parameters that tasks share; a head gets the gradient of its own task, and the gradient of
    penalties is added beside, with the weight 1. One task alone equals the plain run bit for bit. Costs one backward pass a task, an entry a shared
    parameter and task, and a wait for the GPU.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs.

    Source: Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", 2012; Sener & Koltun, "Multi-Task Learning
    as Multi-Objective Optimization", NeurIPS 2018.
    """

    def weights(self, products: Tensor, module: Module) -> Tensor:
        """Those of the shortest mean."""
        return mgda_weights(products)
