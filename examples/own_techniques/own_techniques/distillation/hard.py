"""Learning what a trained run would answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from plugins.base import Batch, Module, Plugin, RecipeError, Refusal, Selection, Setting, Stage, declare


class HardDistillation(Plugin):
    """Learn the class that a trained run predicts as well as the label.

    J = (1 − weight) · J_labels + weight · CE(z, argmax z_teacher), for each classification; the teacher sees the same batch.

    Source: Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021.
    """

    stage = Stage.PENALTY
    needs_logits = True

    teacher: str | None = declare.run_folder("folder of the run that teaches", null="asked for before the first batch")
    weight: float = declare.share("share of the teacher in the loss", default=0.5, off=0.0)

    def __post_init__(self) -> None:
        self._model: Any = None

    def check(self, selection: Selection) -> None:
        """Refuse to go on without a teacher, and data without classes."""
        if self.teacher is None:
            raise Refusal("distillation/hard needs a trained run to learn from: type distillation.teacher=FOLDER")
        if not any(task.kind == "classification" for task in selection.setting.tasks):
            raise Refusal("distillation/hard needs a classification task, and the data has none: leave it out")

    def prepare(self, setting: Setting) -> None:
        """Load the teacher, where there is something to train."""
        super().prepare(setting)
        if setting.training_inputs is not None and setting.load_run is not None and self.teacher is not None:
            model: Any = setting.load_run(self.teacher)
            if (model.setting.shape, model.setting.tasks) != (setting.shape, setting.tasks):
                raise RecipeError(f"distillation.teacher={self.teacher} has learned from other data: choose a run on this")
            self._model = model.eval().requires_grad_(False)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Ask the teacher, once a step."""
        if self._model is None:
            return batch
        with torch.no_grad():
            taught = {task: z.argmax(1) for task, z in self._model.to(module.device).outputs(batch.x).items()}
        return replace(batch, extra={**batch.extra, self.state_key: taught})

    def transform_losses(
        self, losses: Mapping[str, Tensor], module: Module, batch: Batch, outputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The mean of both losses, for each classification."""
        changed, taught = dict(losses), batch.extra.get(self.state_key, {})
        for task in module.setting.tasks:
            if task.kind == "classification" and task.name in taught:
                values = functional.cross_entropy(outputs[task.name].float(), taught[task.name], reduction="none")
                found = module.mean(values, batch, task.name)
                changed[task.name] = (1 - self.weight) * losses[task.name] + self.weight * found
        return changed
