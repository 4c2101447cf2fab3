"""How robust the model is: metrics of every technique that trains on adversarial examples, and a guard."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from plugins.adversarial._ascent import EPS, NORM, fgsm, pgd, random_starts
from plugins.adversarial._crafting import attacked_loss, crafting
from plugins.adversarial._range import RANGE, ValidRange
from plugins.base import Batch, Module, Plugin, Setting, declare, derive_seed

GUARD_STEPS, GUARD_SAMPLES, GUARD_FALL = 5, 128, 0.2
Places = range  # which the class has another use for


class RobustnessMeasured(Plugin):
    """Each evaluation attacks the first `eval_samples` samples of its split, always with the full ε of evaluations.

    By PGD of `eval_steps` steps of ε/4 from each of `eval_restarts` random starts (`val/acc_pgd`, `test/acc_pgd`), and in a
    test by FGSM (`test/acc_fgsm`). `val/acc_pgd` chooses the best model, since robustness overfits before
    accuracy does. At each validation PGD of 5 steps attacks the last training batch (`train_acc_pgd`); a fall by more than 0.2
    from its best is catastrophic overfitting, and is warned of. A sample's start depends on its place in the
    split alone, so that the numbers are those of the model on however many devices it is evaluated.

    Source: Rice et al., "Overfitting in adversarially robust deep learning", ICML 2020; Wong et al., "Fast is better than
    free", ICLR 2020.
    """

    on_shards = True
    on_named_inputs = False

    eps: float = EPS
    norm: str = NORM
    eval_samples: int = declare.count(
        "samples attacked in each evaluation, the first of the split", default=1000, least=0, note="0: none"
    )
    range: Sequence[Any] | None = RANGE
    eval_eps: float | None = declare.number("size of the perturbation in evaluations", default=None, least=0, null="eps")
    eval_steps: int = declare.count("steps of PGD in evaluations", default=10)
    eval_restarts: int = declare.count("random starts of PGD in evaluations; a sample counts that withstands all", default=1)

    def __post_init__(self) -> None:
        """Nothing is known of the data yet."""
        self.valid = ValidRange(self.state_key, self.range)
        self._best = 0.0
        self._last: tuple[Tensor, dict[str, Tensor]] | None = None

    @property
    def trains(self) -> bool:
        """Whether training is changed; without ε it is an attack of evaluations only."""
        return self.eps > 0

    @property
    def evaluated_eps(self) -> float:
        """ε of the attacks in evaluations."""
        return self.eps if self.eval_eps is None else self.eval_eps

    def prepare(self, setting: Setting) -> None:
        """Let robust accuracy choose the best model, where there is one, and find the range of valid inputs."""
        super().prepare(setting)
        if self.trains and self.evaluated_eps > 0 and self.eval_samples > 0 and _classifications(setting):
            self.monitor = "val/acc_pgd"
        # a finished run that is loaded for its predictions attacks nothing; one that is evaluated finds the range then
        attacks = max(self.eps, self.evaluated_eps) > 0
        if setting.training_inputs is not None and (attacks or setting.valid_range):
            self.valid.decide(setting)
            ends = self.valid.plain()
            limit = f"{ends[0]} to {ends[1]}" if ends and ends != [None, None] else "no limit"
            self.remarks = [f"range of valid inputs: {limit}"] * attacks

    def ruler(self, metric: str) -> Mapping[str, Any]:
        """What robust accuracy depends on beside the model; how it was trained is its own affair."""
        attack = {"eval_eps": self.evaluated_eps, "norm": self.norm, "range": self.valid.plain()}
        steps = {"eval_steps": self.eval_steps} if metric == "acc_pgd" else {}
        if metric == "acc_pgd" and self.eval_restarts > 1:  # runs of before had one, and did not tell
            steps["eval_restarts"] = self.eval_restarts
        return {**attack, **steps, "eval_samples": self.eval_samples}

    def remember(self, batch: Batch) -> None:
        """Keep some samples of a training batch for the guard, as they are before any technique."""
        first = slice(GUARD_SAMPLES)
        self._last = batch.x[first].clone(), {task: labels[first].clone() for task, labels in batch.labels.items()}

    directions: ClassVar[Mapping[str, str]] = {"acc_pgd": "max", "acc_fgsm": "max"}

    def measure(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """Which samples are still classified right under attack, for those of the first `eval_samples` of the split."""
        if not self.eval_samples or not _classifications(module.setting):
            return {}
        attacks = {"acc_pgd": self.eval_steps, **({"acc_fgsm": 0} if split == "test" else {})}
        assert batch.positions is not None
        positions = batch.positions[: sum(place < self.eval_samples for place in batch.positions)]
        if not positions:  # a process that has no part of a small split measures what the others do
            return {name: batch.x.new_zeros(0) for name in attacks}
        x, labels = batch.x[: len(positions)], {task: labels[: len(positions)] for task, labels in batch.labels.items()}
        if eps := self.evaluated_eps:
            self.valid.expect_within(module.setting, x, split)
        return {name: self._robust(module, x, labels, eps, steps, split, positions) for name, steps in attacks.items()}

    def _robust(
        self, module: Module, x: Tensor, labels: Mapping[str, Tensor], eps: float, steps: int, split: str, positions: Places
    ) -> Tensor:
        """The share of tasks that each sample is classified right in, however it is attacked: by PGD of `steps` steps (0: by FGSM)."""
        seed = derive_seed(module.setting.seed, "robustness", split)
        starts = [seed, *(derive_seed(seed, start) for start in range(1, self.eval_restarts))] if steps and eps > 0 else [seed]
        with crafting(module.model, True, torch.Generator(x.device).manual_seed(seed)):
            # Copies: a test runs on inference tensors, which know no gradient.
            x, labels = x.clone(), {task: labels.clone() for task, labels in labels.items()}
            loss = attacked_loss(module, labels)
            bounds = self.valid.bounds(module.setting, x) if eps > 0 else None
            hits = []
            for start in starts:
                if steps:
                    begin = random_starts(x, eps, self.norm, positions, start)
                    worst = pgd(x, loss, eps, eps / 4, steps, self.norm, bounds, begin)
                else:
                    worst = fgsm(x, loss, eps, self.norm, bounds)
                outputs = module.outputs(worst)
                hits.append(torch.stack([outputs[task].argmax(1) == labels[task] for task in _classifications(module.setting)]))
        return torch.stack(hits).all(0).float().mean(0)

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        """Look for catastrophic overfitting."""
        self.valid.forget("val")
        if self._last is None or trainer.sanity_checking or not _classifications(module.setting):
            return
        x, labels = self._last
        own, world = len(x), trainer.world_size
        positions = range(trainer.global_rank * own, (trainer.global_rank + 1) * own)
        robust = self._robust(module, x, labels, self.eps, GUARD_STEPS, "train", positions).mean()
        if world > 1:  # all have as many samples of it
            dist.all_reduce(robust)
            robust = robust / world
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
        """Another loader may have other inputs."""
        self.valid.forget("test")

    def state_dict(self) -> dict[str, Any]:
        """The best accuracy under PGD on a training batch so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._best = state_dict["best"]


def _classifications(setting: Setting) -> list[str]:
    return [task.name for task in setting.tasks if task.kind == "classification"]
