"""Projected conflicting gradients (Yu et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Module
from plugins.multitask._aggregated import Aggregated

if TYPE_CHECKING:
    from jaxtyping import Float


def pcgrad_weights(products: Float[Tensor, "tasks tasks"], orders: Sequence[Sequence[int]]) -> Float[Tensor, " tasks"]:
    """The weights w of Σᵢ gᵢᴾᶜ = Σⱼ wⱼ gⱼ, from the inner products of the gradients.

    Row i of C holds gᵢᴾᶜ = Σⱼ C_ij gⱼ; for each other task j in the order of `orders[i]`: C_ij ← C_ij − min(0, gᵢᴾᶜ·gⱼ) / ‖gⱼ‖².
    """
    coefficients = torch.eye(len(products), dtype=products.dtype, device=products.device)
    squares = products.diagonal()
    for own, order in enumerate(orders):
        for other in order:
            if other != own:
                product = coefficients[own] @ products[:, other]
                coefficients[own, other] -= product.clamp(max=0) / torch.where(squares[other] > 0, squares[other], 1.0)
    return coefficients.sum(0)


class PCGrad(Aggregated):
    """Learn several targets; where the gradients of two tasks conflict each loses its part against the other.

    g = Σᵢ gᵢᴾᶜ, where gᵢᴾᶜ begins as gᵢ, and for all other tasks j in random order: gᵢᴾᶜ ← gᵢᴾᶜ − (gᵢᴾᶜ·gⱼ / ‖gⱼ‖²) gⱼ if gᵢᴾᶜ·gⱼ < 0. It
    acts on the parameters that tasks share; a head gets the gradient of its own task. Without a conflict it is `equal`, the sum.
    One task alone equals the plain run bit for bit. Costs one backward pass a task, and an entry a shared parameter and task.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020.
    """

    def weights(self, products: Tensor, module: Module) -> Tensor:
        """Project in an order of its own for each task, the same on all ranks and in all passes of a step."""
        generator = module.generator(self.option, "cpu", same_on_ranks=True)
        orders = [torch.randperm(len(products), generator=generator).tolist() for _ in range(len(products))]
        return pcgrad_weights(products, orders)
