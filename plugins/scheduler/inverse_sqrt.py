"""A learning rate that falls with the root of the time."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.base import declare
from plugins.declare import Declared
from plugins.scheduler._schedule import WARMUP, warmed


def inverse_sqrt(step: int, timescale: int) -> float:
    """1 / √(t / timescale) with t = step + 1, and 1 before the time scale has gone by."""
    return 1 / math.sqrt(max(1.0, (step + 1) / timescale))


class InverseSqrt(Declared):
    """Lower the learning rate like one over the root of the time; it needs no end.

    ε_k = ε_0 / √(max(1, t / N)) with t = k + 1 and N = timescale, such as the steps of an epoch: with N = 1, ε_0 / √t.

    With a warm-up of w steps ε_k = ε_0 · t / w until t = w, then ε_0 / √((t − w + N) / N): as if N steps had gone by at its end. With w = N this
    is ε_0 √N · min(t^−½, t · N^−1.5).

    Source: lecture C (global decay by √(t/N)); Vaswani et al., "Attention is all you need", NeurIPS 2017, with a warm-up of N steps.
    """

    timescale: int = declare.count("N, optimizer steps in which the rate stays before it falls", default=1)
    warmup: int = WARMUP

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Make the scheduler; the number of steps does not matter."""
        if not self.warmup:
            return warmed(optimizer, lambda step: inverse_sqrt(step, self.timescale))
        gone = self.timescale - 1  # the last step of the warm-up is the first at the full rate
        return warmed(optimizer, lambda step: inverse_sqrt(step + gone, self.timescale), self.warmup - 1)
