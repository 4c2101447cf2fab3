"""Gradient normalization (Chen et al., 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Module, Setting, declare
from plugins.multitask._aggregated import Aggregated

if TYPE_CHECKING:
    from jaxtyping import Float


def gradnorm_weights(
    weights: Float[Tensor, " tasks"],
    norms: Float[Tensor, " tasks"],
    ratios: Float[Tensor, " tasks"],
    alpha: float,
    lr: float,
) -> Float[Tensor, " tasks"]:
    """The weights after a step of gradient descent, of their logarithms, on Σᵢ |wᵢ ‖gᵢ‖ − Ḡ rᵢ^α| / Ḡ, with sum m.

    Args:
        weights: w > 0 of m tasks.
        norms: ‖gᵢ‖ of the gradient of each task's loss, up to a common factor; Ḡ is the mean of wᵢ ‖gᵢ‖.
        ratios: Jᵢ / Jᵢ(0), how much is left of each loss; rᵢ is it divided by its mean. Targets Ḡ rᵢ^α are held fast. Where a gradient is 0,
            as in a step without a known label of the task, the others are looked at alone, and share what they had.
        alpha: how much tasks that are behind are pulled ahead.
        lr: learning rate.
    """
    given = norms != 0
    size, count = weights * norms, given.sum()
    mean, ratios = size.sum() / count, torch.where(given, ratios.clamp_min(0), 0.0)
    target = mean * (ratios / (ratios.sum() / count)) ** alpha
    changed = weights * (-lr * (size - target).sign() * size / mean).exp()
    left = len(weights) - torch.where(given, 0.0, weights).sum()
    changed = torch.where(given, changed * (left / torch.where(given, changed, 0.0).sum()), weights)
    return torch.where(changed.isfinite().all(), changed, weights)  # after an overflow, or where no task has a gradient


class GradNorm(Aggregated):
    """Learn several targets by weights that make their gradients as long as their progress asks for.

    g = Σᵢ wᵢ gᵢ; after each step the weights go down the gradient of Σᵢ |wᵢ ‖gᵢ‖ − Ḡ rᵢ^α|, with Ḡ the mean of wᵢ ‖gᵢ‖, rᵢ = Jᵢ / Jᵢ(0) divided by its mean over the tasks and Jᵢ(0)
    the first finite loss that is not 0: tasks that learn slowly get longer gradients. Then they are scaled to the sum m of m tasks, with which they begin. Norms are those of
    the whole step, on all parameters that tasks share, where the source takes one layer. What is descended is divided by Ḡ, and by log wᵢ in place
    of wᵢ: weights stay positive, and losses of another scale lead, in the end, to a gradient of the same direction. It acts on the parameters that tasks share; a head gets
    the gradient of its own task, and the gradient of penalties is added beside, with the weight 1. One task alone equals the plain run bit for bit. Costs one
    backward pass a task, and an entry a shared parameter and task.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs.

    Source: Chen, Badrinarayanan, Lee & Rabinovich, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
    Networks", ICML 2018, algorithm 1.
    """

    alpha: float = declare.number(
        "α, how much tasks that are behind are pulled ahead", default=1.5, least=0.0, note="0: gradients of one length"
    )
    lr: float = declare.number("learning rate of the logarithms of the weights", default=0.025, above=0)

    def prepare(self, setting: Setting) -> None:
        """Begin with equal weights."""
        super().prepare(setting)
        self._weights = torch.ones(len(setting.tasks))
        self._first: Tensor | None = None  # losses of the first step, of each task the first that is finite and not 0
        self._norms: Tensor | None = None  # of gradients, where the weights of the step were in place

    def weights(self, products: Tensor, module: Module) -> Tensor:
        """Those of this step."""
        if self._norms is None:
            self._norms = products.diagonal().clamp_min(0).sqrt().float()
        self._weights = self._weights.to(products.device)
        return self._weights

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Learn the weights of the next step."""
        norms, self._norms = self._norms, None
        if norms is None:  # nothing is shared
            return
        losses = module.step_losses().to(norms)
        first = losses if self._first is None else self._first.to(losses)
        first = self._first = torch.where(first.isfinite() & (first != 0), first, losses)
        ratios = torch.where(first > 0, losses / first, torch.ones_like(first))
        self._weights = gradnorm_weights(self._weights, norms, ratios, self.alpha, self.lr)

    def state_dict(self) -> dict[str, Any]:
        """The weights, and the losses of the first step."""
        return {"weights": self._weights, **({} if self._first is None else {"first": self._first})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._weights = state_dict["weights"].clone()
        self._first = state_dict["first"].clone() if "first" in state_dict else None
