"""A learning rate that falls by the same share in each step."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.base import declare
from plugins.declare import Declared
from plugins.scheduler._schedule import WARMUP, warmed


class ExponentialDecay(Declared):
    """Multiply the learning rate by `factor` after each optimizer step.

    ε_k = ε_0 · factor^k: after 1 / (1 − factor) steps a bit more than a third is left.

    Source: lecture C (annealing); torch.optim.lr_scheduler.ExponentialLR.
    """

    factor: float = declare.number("factor on the rate after each step", default=0.999, above=0)
    warmup: int = WARMUP

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Make the scheduler; the number of steps does not matter."""
        return warmed(optimizer, lambda step: self.factor**step, self.warmup)
