"""A learning rate that falls in steps."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.base import declare
from plugins.declare import Declared
from plugins.scheduler._schedule import WARMUP, warmed


class StepDecay(Declared):
    """Multiply the learning rate by `factor` after every `every` optimizer steps.

    ε_k = ε_0 · factor^⌊k / every⌋.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, which divides by 10 when the error plateaus.
    """

    every: int = declare.count("optimizer steps from one fall to the next", default=1000)
    factor: float = declare.number("factor on the rate at each of them", default=0.1, above=0)

    warmup: int = WARMUP

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Make the scheduler; the number of steps does not matter."""
        return warmed(optimizer, lambda step: self.factor ** (step // self.every), self.warmup)
