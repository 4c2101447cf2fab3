"""Cosine decay with warm restarts (Loshchilov & Hutter, 2017)."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.base import declare
from plugins.declare import Declared
from plugins.scheduler._schedule import WARMUP, warmed
from plugins.scheduler.cosine import cosine


def since_restart(step: int, period: int, factor: float) -> tuple[int, int]:
    """Steps since the last restart, and those of the wave under way; each is `factor` times as long as the one before, rounded."""
    if factor == 1:
        return step % period, period
    length = float(period)
    while step >= round(length):
        step -= round(length)
        length *= factor
    return step, round(length)


class CosineRestarts(Declared):
    """Lower the learning rate along half a cosine wave, again and again.

    ε_k = ε_0 (e + (1 − e) (1 + cos(π k_i / T_i)) / 2) in step k_i of wave i, with T_i = period · factor^i and e = end_factor; it jumps back to ε_0
    at the start of each.

    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, equation 5.
    """

    period: int = declare.count("optimizer steps of the first wave", default=1000)
    factor: float = declare.number("how many times as long each wave is as the one before", default=2.0, least=1)
    end_factor: float = declare.number("learning rate at the end of a wave as a share of the initial one", default=0.0, least=0)
    warmup: int = WARMUP

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Make the scheduler; the number of steps does not matter."""
        return warmed(
            optimizer, lambda step: cosine(*since_restart(step, self.period, self.factor), self.end_factor), self.warmup
        )
