"""A learning rate that falls where the validation loss does not."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from plugins.base import declare
from plugins.declare import Declared
from plugins.metric_schedule import CountsSteps
from plugins.scheduler._schedule import WARMUP


class FallingPlateau(ReduceLROnPlateau):
    """torch's scheduler, for which a loss below 0 falls too where it falls by a share of its size: v' < v − threshold · |v|."""

    def __init__(self, optimizer: Optimizer, threshold: float, **settings: Any) -> None:
        super().__init__(optimizer, threshold_mode="abs", **settings)
        self.share = threshold

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Look at a validation loss."""
        self.threshold = self.share * abs(self.best) if math.isfinite(self.best) else 0.0
        super().step(metrics, epoch)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the position; older checkpoints have a threshold of another kind."""
        super().load_state_dict({name: value for name, value in state_dict.items() if not name.startswith("threshold")})


class WarmedPlateau(FallingPlateau, CountsSteps):
    """The same behind a warm-up: ε_k = ε_0 · (k + 1) / (warmup + 1) for k < warmup, in which validations do not count."""

    def __init__(self, optimizer: Optimizer, warmup: int, **settings: Any) -> None:
        super().__init__(optimizer, **settings)
        self.warmup, self.done = warmup, 0
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._warm(optimizer)

    def _warm(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (self.done + 1) / (self.warmup + 1)

    def count_step(self) -> None:
        """Count an optimizer step: the rate rises."""
        if self.done < self.warmup:
            self.done += 1
            self._warm(self.optimizer)

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Look at a validation loss, once the rate is at its full value."""
        if self.done == self.warmup:
            super().step(metrics, epoch)


class Plateau(Declared):
    """Multiply the learning rate by `factor` where the validation loss has not fallen for more than `patience` validations.

    v is the val/loss at the last fall that counted, at first the first one; one below v − threshold · |v| counts as a fall. After
    `patience` + 1 validations in a row without one ε ← max(factor · ε, end_factor · ε_0), and the counting begins anew. With a `warmup` it begins
    behind it. The state is in the checkpoint.

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau; He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    goes_by_validation: ClassVar[bool] = True

    factor: float = declare.number("factor on the rate at each fall", default=0.1, above=0, below=1)
    patience: int = declare.count("validations in a row without a fall of the loss that are borne", default=5, least=0)
    threshold: float = declare.number("relative fall of the loss that counts", default=1e-4, least=0, below=1)
    end_factor: float = declare.number("least learning rate as a share of the initial one", default=0.0, least=0)
    warmup: int = WARMUP

    def __call__(self, optimizer: Optimizer, total_steps: int) -> ReduceLROnPlateau:
        """Make the scheduler, which the engine steps after each validation."""
        settings: dict[str, Any] = {"factor": self.factor, "patience": self.patience, "threshold": self.threshold, "eps": 0.0}
        least = [self.end_factor * group["lr"] for group in optimizer.param_groups]
        if self.warmup:
            return WarmedPlateau(optimizer, self.warmup, min_lr=least, **settings)
        return FallingPlateau(optimizer, min_lr=least, **settings)
