"""The learning rate as it is."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


class ConstantRate:
    """Leave the learning rate alone: ε_k = ε_0.

    Source: lecture A (batch gradient descent uses a fixed learning rate).
    """

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Make the scheduler; the number of steps does not matter."""
        return LambdaLR(optimizer, lambda step: 1.0)
