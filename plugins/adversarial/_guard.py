"""A guard against catastrophic overfitting, in every technique that trains on adversarial examples."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from plugins.adversarial._robustness import RobustnessMeasured, classifications
from plugins.base import Batch

STEPS, SAMPLES, FALL = 5, 128, 0.2


class OverfittingWatched(RobustnessMeasured):
    """At each validation PGD of 5 steps attacks the last training batch (`train_acc_pgd`).

    A fall by more than 0.2 from its best is catastrophic overfitting: what one step finds is withstood, and nothing else. It is warned of,
    and told again at the end of the run.

    Source: Wong et al., "Fast is better than free", ICLR 2020.
    """

    def __post_init__(self) -> None:
        """Nothing has been seen yet."""
        super().__post_init__()
        self._last: tuple[Tensor, dict[str, Tensor]] | None = None
        self._begin()

    def _begin(self) -> None:
        self._best, self.events = 0.0, []

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin anew, unless the training was begun before."""
        if pl_module.steps_done == 0:
            self._begin()

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
            fell = f"accuracy under PGD on a training batch fell from {self._best:.2f} to {now:.2f}, catastrophic overfitting"
            self.events = [*self.events, f"{fell}, by step {module.steps_done}"]
            if trainer.is_global_zero:
                warnings.warn(
                    f"{self.state_key}: {fell}: use +adversarial=pgd, or lower adversarial.eps (now {self.eps})", stacklevel=1
                )
            self._best = now  # one warning for each fall
        self._best = max(self._best, now)

    def state_dict(self) -> dict[str, Any]:
        """The best accuracy under PGD on a training batch so far, and its falls."""
        return {"best": self._best, "events": list(self.events)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._best, self.events = state_dict["best"], list(state_dict.get("events", ()))  # older checkpoints have none
