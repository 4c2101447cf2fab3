"""Cautious updates (Liang et al., 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Module, OptimizerWrapper, Plugin, Stage
from plugins.shards import part, summed

if TYPE_CHECKING:
    from jaxtyping import Float

LEAST = 1e-3  # of the share by which an update is divided


def kept_by_decay(group: Mapping[str, Any]) -> float:
    """The share of each weight that is left by a decay that stands beside the update, as that of AdamW; 1 where it is a part of it.

    Which it is tells the group: torch calls it `decoupled_weight_decay`, and pytorch_optimizer `weight_decouple`, without the learning rate if
    `fixed_decay`, which is taken as a part of the update. Of an optimizer of a library by name that tells neither, as those of timm, it is a part.
    """
    apart = group.get("decoupled_weight_decay", group.get("weight_decouple", False)) and not group.get("fixed_decay", False)
    return 1.0 - float(group["lr"]) * float(group["weight_decay"]) if apart else 1.0


@torch.no_grad()
def agreeing(
    update: Float[Tensor, " *shape"], gradient: Float[Tensor, " *shape"]
) -> tuple[Float[Tensor, " *shape"], Float[Tensor, ""]]:
    """1 where a step along −update goes down by what the gradient says, u · g > 0, else 0; and how many these are."""
    mask = update.sign() * gradient.sign() > 0  # the product of small numbers would be 0 in 16 bits
    return mask.to(update.dtype), mask.sum(dtype=torch.promote_types(update.dtype, torch.float32))


class Cautious(OptimizerWrapper):
    """An optimizer of which only that part of an update is made that agrees with the gradient in sign.

    After a step `agreement` is the share of all numbers that agree, a scalar tensor.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self.agreement: Tensor | None = None

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one update, and take back what of it disagrees."""
        decayed = [
            (weight, kept_by_decay(group)) for group in self.param_groups for weight in group["params"] if weight.requires_grad
        ]
        before = [part(weight.detach()) * factor for weight, factor in decayed]
        loss = super().step(closure)
        with torch.no_grad():
            self._be_cautious(
                [(weight, start) for (weight, _), start in zip(decayed, before, strict=True) if weight.grad is not None]
            )
        return loss

    def _be_cautious(self, moved: list[tuple[Tensor, Tensor]]) -> None:
        if not moved:
            return
        updates = [start - part(weight.detach()) for weight, start in moved]
        found = [agreeing(update, part(weight.grad)) for update, (weight, _) in zip(updates, moved, strict=True)]
        counts = summed(torch.stack([count for _, count in found]), moved[0][0])
        sizes = [weight.numel() for weight, _ in moved]
        for (weight, start), update, (mask, _), count, size in zip(moved, updates, found, counts, sizes, strict=True):
            share = (count / size).clamp_min(LEAST)
            own = part(weight.detach())
            own.copy_(torch.where(count == size, own, start - update * (mask / share)))
        self.agreement = counts.sum() / sum(sizes)


class CautiousUpdates(Plugin):
    """Move a weight only where the optimizer's update and the gradient agree in sign.

    θ ← θ − ε u ∘ m / max(mean(m), 0.001) with m = (u ∘ g > 0), for each parameter by itself: momentum that leads up the slope as it is now
    rests, and the others go further. u is the update of whatever optimizer is chosen, g the gradient that it was given, after clipping and of
    the last pass of sam. A weight decay that stands beside the update, as that of AdamW, Lion and Muon, is left as it is (that of
    Adan to first order in ε). With plain SGD
    nothing disagrees. Costs no passes, and memory for one copy of the weights.

    Source: Liang, Chen, Liu & Liu, "Cautious Optimizers: Improving Training with One Line of Code", 2024; its published code for the
    mean's bound.
    """

    stage = Stage.WRAPPER
    on_shards = True
    refuses = {
        "optimizer/schedule_free": "its steps lead towards an average too, which would no longer be that of the weights; take "
        "optimizer=adamw"
    }

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Put the wrapper around the optimizer."""
        self.wrapper = Cautious(optimizer)
        return self.wrapper

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Log the share of numbers that agree."""
        if self.wrapper.agreement is not None:
            self.record(module, "agreement", self.wrapper.agreement)
