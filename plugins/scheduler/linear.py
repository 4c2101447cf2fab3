"""Linear decay of the learning rate, then constant."""

from __future__ import annotations

from plugins.base import declare
from plugins.scheduler._schedule import STEPS, WARMUP, Schedule


def linear(step: int, steps: int, end_factor: float) -> float:
    """(1 − α) + α · end_factor with α = min(1, step / steps)."""
    alpha = min(1.0, step / steps)
    return (1 - alpha) + alpha * end_factor


class LinearDecay(Schedule):
    """Lower the learning rate along a line, then hold it.

    ε_k = (1 − α) ε_0 + α ε_τ with α = min(1, k / τ), where ε_τ = end_factor · ε_0 and τ = steps.

    Raises:
        RecipeError: `steps` left out and the training without an end, or not above `warmup`, which it counts too.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", equation 8.14; lecture A.
    """

    end_factor: float = declare.number("final learning rate as a share of the initial one", default=0.01, least=0)
    steps: int | None = STEPS
    warmup: int = WARMUP

    def factor(self, step: int, steps: int) -> float:
        """See :func:`linear`."""
        return linear(step, steps, self.end_factor)
