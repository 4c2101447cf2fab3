"""What techniques that make one gradient of those of several tasks share: their inner products, conflicts and a weight for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Module
from plugins.multitask._heads import MultiTask

if TYPE_CHECKING:
    from jaxtyping import Float


def inner_products(gradients: Float[Tensor, "tasks n"]) -> Float[Tensor, "tasks tasks"]:
    """G_ij = gᵢ·gⱼ, all divided by the square of the largest entry, so that none overflows or vanishes."""
    rows = (gradients / gradients.abs().amax().clamp_min(torch.finfo(gradients.dtype).tiny)).unbind()
    # no product of matrices: that is rounded to few bits where trainer.matmul_precision allows it
    return torch.stack([torch.stack([(one * other).sum() for other in rows]) for one in rows])


def cosines(products: Float[Tensor, "tasks tasks"]) -> Float[Tensor, " pairs"]:
    """The cosine between the gradients of each pair of tasks, from their inner products; 0 where a gradient is 0."""
    norms = products.diagonal().clamp_min(0).sqrt()
    first, second = torch.triu_indices(len(products), len(products), 1, device=products.device)
    scale = norms[first] * norms[second]
    return torch.where(scale > 0, products[first, second] / scale, torch.zeros_like(scale))


class Aggregated(MultiTask):
    """Learn several targets by one gradient made of those of all tasks; a subclass gives each a weight.

    Logged: `TASK_loss`, `weight_TASK`, `cosine`, the cosine between the gradients of two tasks on the parameters they share (its mean over
    all pairs), and `conflicts`, the share of pairs that pull in opposite directions.
    """

    def weights(self, products: Float[Tensor, "tasks tasks"], module: Module) -> Float[Tensor, " tasks"]:
        """The weight of each task's gradient, from their inner products up to a common factor."""
        raise NotImplementedError

    def aggregate(self, gradients: Tensor, module: Module) -> Tensor:
        """The weighted sum (n,) of the gradients (tasks, n)."""
        products = inner_products(gradients)
        found = cosines(products)
        self.record(module, "cosine", found.mean())
        self.record(module, "conflicts", (found < 0).float().mean())
        weights = self.weights(products, module).to(gradients.dtype)
        self.record_weights(module, weights)
        return torch.einsum("t,tn->n", weights, gradients)
