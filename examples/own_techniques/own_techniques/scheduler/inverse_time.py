"""Inverse time decay of the learning rate."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from plugins.base import expect_nonnegative


class InverseTime:
    """Lower the learning rate like one over time.

    ε_k = ε_0 / (1 + decay · k) after k steps.

    Args:
        decay: how fast, ≥ 0; 0 leaves the rate alone.

    Source: Robbins & Monro, "A Stochastic Approximation Method", 1951: Σ ε_k = ∞ and Σ ε_k² < ∞.
    """

    def __init__(self, decay: float = 0.01) -> None:
        expect_nonnegative("decay", decay)
        self.decay = decay

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Make torch's scheduler, which is stepped after each optimizer step."""
        return LambdaLR(optimizer, lambda step: 1 / (1 + self.decay * step))
