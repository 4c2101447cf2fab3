"""Exponential moving average of the weights (Polyak & Juditsky, 1992)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.averaging._average import Averaging
from plugins.base import declare

if TYPE_CHECKING:
    from jaxtyping import Float


def ema(average: list[Float[Tensor, " ..."]], weights: list[Float[Tensor, " ..."]], decay: float) -> None:
    """average ← decay · average + (1 − decay) · weights, in place."""
    if decay == 0:
        torch._foreach_copy_(average, weights)
    else:
        torch._foreach_lerp_(average, weights, 1 - decay)


class EMA(Averaging):
    """Evaluate and keep the exponential moving average of the weights.

    `θ̄_1 = θ_1`, then `θ̄_t = decay · θ̄_(t−1) + (1 − decay) · θ_t` after each step, over about 1 / (1 − decay) steps. With a `warmup` w
    the decay is min(decay, t / (w + t − 1)), so that the first weights, which are far from trained, are soon forgotten. Training itself does not
    see the average. Running statistics, such as batch norm's, are averaged too, and no other buffers.

    Raises:
        RecipeError: a checkpoint of another model.

    Source: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; torch's AveragedModel.
    """

    decay: float = declare.share(
        "share of the average that is kept in each step", default=0.99, note="it spans about 1 / (1 - decay) steps", off=0.0
    )
    warmup: float = declare.number(
        "w of the decay min(decay, t / (w + t - 1)) in step t",
        default=0.0,
        least=0,
        note="10 is usual; up to 1 it is decay from the start",
    )

    def move(self, average: list[Tensor], weights: list[Tensor]) -> None:
        """See :func:`ema`."""
        ema(average, weights, min(self.decay, (self.count + 1) / (self.warmup + self.count)))
