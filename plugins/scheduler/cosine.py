"""Cosine decay of the learning rate (Loshchilov & Hutter, 2017)."""

from __future__ import annotations

import math

from plugins.base import declare
from plugins.scheduler._schedule import STEPS, WARMUP, Schedule


def cosine(step: int, steps: int, end_factor: float) -> float:
    """end_factor + (1 − end_factor) · (1 + cos πα) / 2 with α = min(1, step / steps)."""
    return end_factor + (1 - end_factor) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2


class CosineDecay(Schedule):
    """Lower the learning rate along half a cosine wave, then hold it.

    ε_k = ε_τ + (ε_0 − ε_τ) (1 + cos(π min(1, k / τ))) / 2, where ε_τ = end_factor · ε_0 and τ = steps.

    Raises:
        RecipeError: `steps` left out and the training without an end, or not above `warmup`, which it counts too.

    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.
    """

    end_factor: float = declare.number("final learning rate as a share of the initial one", default=0.0, least=0)
    steps: int | None = STEPS
    warmup: int = WARMUP

    def factor(self, step: int, steps: int) -> float:
        """See :func:`cosine`."""
        return cosine(step, steps, self.end_factor)
