"""`max_time`: the end of a training after a time, as Lightning's Timer, and as any other end of it: validated, tested, resumable."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class TimeLimit(L.Callback):
    """End the training after the first step that ends later than a time.

    What counts is the time in which the run trains and validates, that of earlier starts with a limit too.

    Args:
        seconds: the time; None: no limit.
        before: what was spent before the first step.
    """

    def __init__(self, seconds: float | None, before: float = 0.0) -> None:
        self.seconds = seconds
        self.reached = False
        self._before, self._since = before, None  # type: tuple[float, float | None]

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self._before + (time.monotonic() - self._since if self._since is not None else 0.0)

    def state_dict(self) -> dict[str, Any]:
        """The time, for a run that is resumed; nothing where there is no limit, so that equal runs leave equal checkpoints."""
        return {} if self.seconds is None else {"seconds": self.spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on."""
        self._before = float(state_dict["seconds"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self._since = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Make the steps done the limit, for all processes: the run ends as one that was limited to them."""
        if self.seconds is None:
            return
        if trainer.strategy.reduce_boolean_decision(self.spent >= self.seconds, all=False):
            self.reached = True
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The time of a further phase is added."""
        self._before, self._since = self.spent, None
