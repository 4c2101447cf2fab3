"""How robust the model is: metrics of every technique that trains on adversarial examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor

from plugins.adversarial._ascent import EPS, NORM, fgsm, pgd, random_starts
from plugins.adversarial._crafting import attacked_loss, crafting
from plugins.adversarial._range import RANGE, ValidRange
from plugins.base import Batch, Module, Plugin, Setting, declare, derive_seed

Places = range  # which the class has another use for


class RobustnessMeasured(Plugin):
    """Each evaluation attacks the first `eval_samples` samples of its split, always with the full ε of evaluations.

    By PGD of `eval_steps` steps of ε/4 from each of `eval_restarts` random starts (`val/acc_pgd`, `test/acc_pgd`), and in a
    test by FGSM (`test/acc_fgsm`). `val/acc_pgd` chooses the best model, since robustness overfits before
    accuracy does. Of several classifications a sample must withstand in each whose label is known; one without any known label does not
    count. Attacked, and asked, is the model by itself, without what `inference=` makes of its outputs. A sample's start depends on its place in
    the split alone, so that the numbers are those of the model on however many devices it is evaluated.

    Source: Rice et al., "Overfitting in adversarially robust deep learning", ICML 2020.
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
        if self.trains and self.evaluated_eps > 0 and self.eval_samples > 0 and classifications(setting):
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

    directions: ClassVar[Mapping[str, str]] = {"acc_pgd": "max", "acc_fgsm": "max"}

    def measure(
        self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Which samples are still classified right under attack, for those of the first `eval_samples` of the split, and which count."""
        if not self.eval_samples or not classifications(module.setting):
            return {}
        attacks = {"acc_pgd": self.eval_steps, **({"acc_fgsm": 0} if split == "test" else {})}
        assert batch.positions is not None
        positions = batch.positions[: sum(place < self.eval_samples for place in batch.positions)]
        if not positions:  # a process that has no part of a small split measures what the others do
            return {name: (batch.x.new_zeros(0), batch.x.new_zeros(0) > 0) for name in attacks}
        x, labels = batch.x[: len(positions)], {task: labels[: len(positions)] for task, labels in batch.labels.items()}
        if eps := self.evaluated_eps:
            self.valid.expect_within(module.setting, x, split)
        attacked = (module, x, labels, eps)
        return {name: self.robust(*attacked, steps, split, positions, self.eval_restarts) for name, steps in attacks.items()}

    def robust(
        self,
        module: Module,
        x: Tensor,
        labels: Mapping[str, Tensor],
        eps: float,
        steps: int,
        split: str,
        positions: Places,
        restarts: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Which samples are classified right, attacked by PGD of `steps` steps from each start (0: by FGSM), and which have a known label."""
        seed = derive_seed(module.setting.seed, "robustness", split)
        starts = [seed, *(derive_seed(seed, start) for start in range(1, restarts))] if steps and eps > 0 else [seed]
        with crafting(module.model, True, torch.Generator(x.device).manual_seed(seed)):
            # Copies: a test runs on inference tensors, which know no gradient.
            x, labels = x.clone(), {task: labels.clone() for task, labels in labels.items()}
            loss = attacked_loss(module, labels)
            known = {task.name: task.known(labels[task.name]) for task in module.setting.tasks if task.kind == "classification"}
            bounds = self.valid.bounds(module.setting, x) if eps > 0 else None
            hits = []
            for start in starts:
                if steps:
                    begin = random_starts(x, eps, self.norm, positions, start)
                    worst = pgd(x, loss, eps, eps / 4, steps, self.norm, bounds, begin)
                else:
                    worst = fgsm(x, loss, eps, self.norm, bounds)
                outputs = module.outputs(worst)
                hits += [(outputs[task].argmax(1) == labels[task]) | ~there for task, there in known.items()]
        return torch.stack(hits).all(0).float(), torch.stack([*known.values()]).any(0)

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        """Another loader may have other inputs."""
        self.valid.forget("val")

    def on_test_start(self, trainer: L.Trainer, module: Any) -> None:
        """Another loader may have other inputs."""
        self.valid.forget("test")


def classifications(setting: Setting) -> list[str]:
    """The names of the targets that are classes."""
    return [task.name for task in setting.tasks if task.kind == "classification"]
