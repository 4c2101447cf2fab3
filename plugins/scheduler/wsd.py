"""Warm-up, stable, decay (Hu et al., 2024)."""

from __future__ import annotations

from plugins.base import declare
from plugins.scheduler._schedule import STEPS, Schedule


def stable_decay(step: int, steps: int, falling: float, end_factor: float) -> float:
    """1 until the last `falling` steps of `steps`, in which it falls to end_factor along a line; then it stays."""
    done = min(1.0, max(0.0, step - (steps - falling)) / falling) if falling else float(step >= steps)
    return (1 - done) + done * end_factor


class WSD(Schedule):
    """Raise the learning rate, hold it, and lower it along a line at the end.

    ε_k = ε_0 · (k + 1) / (w + 1) for k < w = warmup, then ε_0, and over the last `decay` share of the τ = steps along a line to ε_τ = end_factor · ε_0.
    Until it falls the rates do not depend on where the training ends: a run that was stopped there can be gone on with for longer, as if it had
    been meant to.

    Raises:
        RecipeError: `steps` left out and the training without an end, or not above `warmup`, which it counts too.

    Source: Hu et al., "MiniCPM", 2024; Hägele et al., "Scaling laws and compute-optimal training beyond fixed training durations", 2024.
    """

    warmup: int = declare.count(
        "optimizer steps at the start in which the rate rises to its full value, along a line", default=100, least=0
    )
    decay: float = declare.share("share of the steps, at the end, in which the rate falls", default=0.2)
    end_factor: float = declare.number("final learning rate as a share of the initial one", default=0.0, least=0)
    steps: int | None = STEPS

    def factor(self, step: int, steps: int) -> float:
        """See :func:`stable_decay`."""
        return stable_decay(step, steps, min(float(steps), self.decay * (steps + self.warmup)), self.end_factor)
