"""A guard against catastrophic overfitting, in every technique that trains on adversarial examples."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from plugins.adversarial._robustness import RobustnessMeasured, classifications
from plugins.base import Batch

STEPS, SAMPLES, FALL = 5, 128, 0.2


class OverfittingWatched(RobustnessMeasured):
    """At each validation PGD of 5 steps attacks the last training batch (`train_acc_pgd`).

    A fall by more than 0.2 from its best is catastrophic overfitting, and is warned of: what one step finds is withstood, and nothing else.

    Source: Wong et al., "Fast is better than free", ICLR 2020.
    """

    def __post_init__(self) -> None:
        """Nothing has been seen yet."""
        super().__post_init__()
        self._best = 0.0
        self._last: tuple[Tensor, dict[str, Tensor]] | None = None

    def remember(self, batch: Batch) -> None:
        """Keep some samples of a training batch for the guard, as they are before any technique."""
        first = slice(SAMPLES)
        self._last = batch.x[first].clone(), {task: labels[first].clone() for task, labels in batch.labels.items()}

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        """Look for catastrophic overfitting."""
        super().on_validation_start(trainer, module)
        if self._last is None or trainer.sanity_checking or not classifications(module.setting):
            return
        x, labels = self._last
        own, world = len(x), trainer.world_size
        positions = range(trainer.global_rank * own, (trainer.global_rank + 1) * own)
        robust, known = self.robust(module, x, labels, self.eps, STEPS, "train", positions)
        sums = torch.stack([(robust * known).sum(), known.sum()])
        if world > 1:
            dist.all_reduce(sums)
        if not sums[1]:  # no label of the batch is known
            return
        self.record(module, "train_acc_pgd", sums[0] / sums[1])
        now = float(sums[0] / sums[1])
        if now < self._best - FALL:
            self._warn(now)
            self._best = now  # one warning for each fall
        self._best = max(self._best, now)

    @rank_zero_only
    def _warn(self, now: float) -> None:
        warnings.warn(
            f"{self.state_key}: accuracy under PGD on a training batch fell from {self._best:.2f} to {now:.2f}, "
            f"catastrophic overfitting: use +adversarial=pgd, or lower adversarial.eps (now {self.eps})",
            stacklevel=2,
        )

    def state_dict(self) -> dict[str, Any]:
        """The best accuracy under PGD on a training batch so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._best = state_dict["best"]
