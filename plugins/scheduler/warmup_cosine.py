"""A warm-up, then half a cosine wave."""

from __future__ import annotations

from plugins.base import declare
from plugins.scheduler._schedule import STEPS
from plugins.scheduler.cosine import CosineDecay


class WarmupCosine(CosineDecay):
    """Raise the learning rate along a line, then lower it along half a cosine wave: `scheduler=cosine` with a warm-up of its own.

    ε_k = ε_0 · (k + 1) / (w + 1) for k < w = warmup, then ε_τ + (ε_0 − ε_τ) (1 + cos(π min(1, (k − w) / (τ − w)))) / 2 with τ = steps and
    ε_τ = end_factor · ε_0.

    Raises:
        RecipeError: `steps` left out and the training without an end, or not above `warmup`, which it counts too.

    Source: Goyal et al., "Accurate, large minibatch SGD", 2017 (warm-up); Loshchilov & Hutter, "SGDR", ICLR 2017.
    """

    end_factor: float = declare.number("final learning rate as a share of the initial one", default=0.0, least=0)
    steps: int | None = STEPS
    warmup: int = declare.count(
        "optimizer steps at the start in which the rate rises to its full value, along a line", default=100, least=0
    )
