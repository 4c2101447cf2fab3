"""How robust the model is: metrics of every technique that trains on adversarial examples, and a guard."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from plugins.adversarial._ascent import fgsm, pgd, random_start
from plugins.adversarial._crafting import attacked_loss, crafting, valid_range
from plugins.base import Batch, Module, Plugin, Setting, derive_seed

EVALUATION_STEPS = 10
GUARD_STEPS, GUARD_SAMPLES, GUARD_FALL = 5, 128, 0.2


class RobustnessMeasured(Plugin):
    """Each evaluation attacks the first `eval_samples` samples of its split, on each process, always with the full ε.

    By PGD of 10 steps of ε/4 from a random start (`val/acc_pgd`, `test/acc_pgd`), and in a test by FGSM
    (`test/acc_fgsm`). `val/acc_pgd` chooses the best model, since robustness overfits before accuracy does. At each
    validation PGD of 5 steps attacks the last training batch (`train_acc_pgd`); a fall by more than 0.2 from its best is
    catastrophic overfitting, and is warned of.

    Source: Rice et al., "Overfitting in adversarially robust deep learning", ICML 2020; Wong et al., "Fast is better than
    free", ICLR 2020.
    """

    on_shards = True

    def __init__(self, eps: float, norm: str, eval_samples: int) -> None:
        self.eps, self.norm, self.eval_samples = eps, norm, eval_samples
        self._best = 0.0
        self._last: tuple[Tensor, dict[str, Tensor]] | None = None
        self._measured: dict[str, int] = {}

    def prepare(self, setting: Setting) -> None:
        """Let robust accuracy choose the best model, where there is one."""
        super().prepare(setting)
        if self.eps > 0 and self.eval_samples > 0 and _classifications(setting):
            self.monitor = "val/acc_pgd"

    def remember(self, batch: Batch) -> None:
        """Keep some samples of a training batch for the guard, as they are before any technique."""
        first = slice(GUARD_SAMPLES)
        self._last = batch.x[first].clone(), {task: labels[first].clone() for task, labels in batch.labels.items()}

    directions: ClassVar[Mapping[str, str]] = {"acc_pgd": "max", "acc_fgsm": "max"}

    def measure(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """Which samples are still classified right under attack, for the first `eval_samples` of the split."""
        done = self._measured.get(split, 0)
        samples = min(len(batch), self.eval_samples - done)
        if self.eval_samples <= done or not _classifications(module.setting):
            return {}
        if samples == 0:  # a process that has no part of a small split measures what the others do
            return {name: batch.x.new_zeros(0) for name in ("acc_pgd", *(["acc_fgsm"] if split == "test" else []))}
        self._measured[split] = done + samples
        x, labels = batch.x[:samples], {task: labels[:samples] for task, labels in batch.labels.items()}
        metrics = {"acc_pgd": self._robust(module, x, labels, EVALUATION_STEPS, split, done)}
        if split == "test":
            metrics["acc_fgsm"] = self._robust(module, x, labels, 0, split, done)
        return metrics

    def _robust(self, module: Module, x: Tensor, labels: Mapping[str, Tensor], steps: int, *stream: str | int) -> Tensor:
        """The share of tasks that each sample, attacked by PGD of `steps` steps (0: by FGSM), is classified right in."""
        seed = derive_seed(module.setting.seed, "robustness", *stream, module.trainer.global_rank)
        generator = torch.Generator(x.device).manual_seed(seed)
        with crafting(module.model, True, generator):
            # Copies: a test runs on inference tensors, which know no gradient.
            x, labels = x.clone(), {task: labels.clone() for task, labels in labels.items()}
            loss, bounds = attacked_loss(module, labels), valid_range(module)
            if steps:
                start = random_start(x, self.eps, self.norm, generator)
                x = pgd(x, loss, self.eps, self.eps / 4, steps, self.norm, bounds, start)
            else:
                x = fgsm(x, loss, self.eps, self.norm, bounds)
            outputs = module.outputs(x)
            hits = [outputs[task].argmax(1) == labels[task] for task in _classifications(module.setting)]
        return torch.stack(hits).float().mean(0)

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        """Start counting, and look for catastrophic overfitting."""
        self._measured["val"] = 0
        if self._last is None or trainer.sanity_checking or not _classifications(module.setting):
            return
        robust = self._robust(module, *self._last, GUARD_STEPS, "train").mean()
        self.record(module, "train_acc_pgd", robust)
        now = float(robust)
        if now < self._best - GUARD_FALL:
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

    def on_test_start(self, trainer: L.Trainer, module: Any) -> None:
        """Start counting."""
        self._measured["test"] = 0

    def state_dict(self) -> dict[str, Any]:
        """The best accuracy under PGD on a training batch so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._best = state_dict["best"]


def _classifications(setting: Setting) -> list[str]:
    return [task.name for task in setting.tasks if task.kind == "classification"]
