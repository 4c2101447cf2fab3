"""Polynomial decay of the learning rate."""

from __future__ import annotations

from plugins.base import declare
from plugins.scheduler._schedule import STEPS, WARMUP, Schedule


def polynomial(step: int, steps: int, power: float, end_factor: float) -> float:
    """end_factor + (1 − end_factor) · (1 − min(1, step / steps))^power."""
    return end_factor + (1 - end_factor) * (1 - min(1.0, step / steps)) ** power


class PolynomialDecay(Schedule):
    """Lower the learning rate like a power of what is left of the training, then hold it.

    ε_k = ε_τ + (ε_0 − ε_τ) (1 − min(1, k / τ))^power, where ε_τ = end_factor · ε_0 and τ = steps: with power 1 a line.

    Raises:
        RecipeError: `steps` left out and the training without an end, or not above `warmup`, which it counts too.

    Source: Chen et al., "DeepLab", 2017 ("poly", power 0.9); torch.optim.lr_scheduler.PolynomialLR.
    """

    power: float = declare.number("exponent of what is left", default=2.0, above=0)
    end_factor: float = declare.number("final learning rate as a share of the initial one", default=0.0, least=0)
    steps: int | None = STEPS
    warmup: int = WARMUP

    def factor(self, step: int, steps: int) -> float:
        """See :func:`polynomial`."""
        return polynomial(step, steps, self.power, self.end_factor)
