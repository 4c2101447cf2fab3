"""Linear decay of the learning rate, then constant."""

from __future__ import annotations

from plugins.base import expect_nonnegative
from plugins.scheduler._schedule import Schedule


def linear(step: int, steps: int, end_factor: float) -> float:
    """(1 − α) + α · end_factor with α = min(1, step / steps)."""
    alpha = min(1.0, step / steps)
    return (1 - alpha) + alpha * end_factor


class LinearDecay(Schedule):
    """Lower the learning rate along a line, then hold it.

    ε_k = (1 − α) ε_0 + α ε_τ with α = min(1, k / τ), where ε_τ = end_factor · ε_0 and τ = steps.

    Args:
        end_factor: the final learning rate as a share of the initial one, ≥ 0; about 1 % is usual.
        steps: optimizer steps until the final rate is reached; all of the training when left out.

    Raises:
        RecipeError: a parameter out of range; `steps` left out and the training without an end.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", equation 8.14; lecture A.
    """

    def __init__(self, end_factor: float = 0.01, steps: int | None = None) -> None:
        super().__init__(steps)
        expect_nonnegative("end_factor", end_factor)
        self.end_factor = end_factor

    def factor(self, step: int, steps: int) -> float:
        """See :func:`linear`."""
        return linear(step, steps, self.end_factor)
