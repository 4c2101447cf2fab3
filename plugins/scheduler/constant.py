"""The learning rate as it is."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.declare import Declared
from plugins.scheduler._schedule import WARMUP, warmed


class ConstantRate(Declared):
    """Leave the learning rate alone: ε_k = ε_0.

    Source: lecture A (batch gradient descent uses a fixed learning rate).
    """

    warmup: int = WARMUP

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Make the scheduler; the number of steps does not matter."""
        return warmed(optimizer, lambda step: 1.0, self.warmup)
