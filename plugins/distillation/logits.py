"""Knowledge distillation from logits (Hinton et al., 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from plugins.base import (
    Batch,
    Module,
    Plugin,
    RecipeError,
    Refusal,
    Selection,
    Setting,
    Stage,
    declare,
)

if TYPE_CHECKING:
    from jaxtyping import Float


def distillation_loss(
    student: Float[Tensor, "samples classes"], teacher: Float[Tensor, "samples classes"], temperature: float
) -> Float[Tensor, ""]:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over samples; T² keeps the gradient's scale at any T."""
    student, teacher = ((logits.float() / temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


class LogitDistillation(Plugin):
    """Learn from the outputs of a trained run as well as from the labels.

    J = (1 − α) · J_labels + α · T² · KL(softmax(z_teacher / T) ‖ softmax(z / T)), a mean over samples, for each classification; a
    regression keeps its loss. The teacher sees the same batch, after all augmentation, once a step; it is in evaluation mode, not
    trained, and not in this run's checkpoints: to evaluate this run it is not needed.

    Raises:
        RecipeError: no such run, one of other samples or other classes.
        Refusal: no teacher; no classification task; a loss whose outputs are no logits.

    Source: Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015.
    """

    stage = Stage.PENALTY
    needs_logits = True

    teacher: str | None = declare.run_folder(
        "folder of the run that teaches, by its best checkpoint, such as outputs/DATE/TIME-ID",
        null="asked for before the first batch",
    )
    temperature: float = declare.number("T, how far probabilities are levelled before they are compared", default=4.0, above=0)
    weight: float = declare.share("α, the share of the teacher in the loss", default=0.5, off=0.0)

    def __post_init__(self) -> None:
        self._model: Any = None  # kept here, so that it is no part of the module that is trained and saved

    def check(self, selection: Selection) -> None:
        """Refuse to go on without a teacher, and data without classes."""
        if self.teacher is None:
            raise Refusal(
                f"{self.state_key} needs a trained run to learn from: type distillation.teacher=FOLDER, such as outputs/DATE/TIME-ID"
            )
        if not any(task.kind == "classification" for task in selection.setting.tasks):
            raise Refusal(f"{self.state_key} needs a classification task, and the data has none: leave it out")

    def prepare(self, setting: Setting) -> None:
        """Load the teacher, where there is something to train."""
        super().prepare(setting)
        if setting.training_inputs is None:
            return
        if setting.load_run is None:
            raise RecipeError(
                f"{self.state_key} loads its teacher from a run folder: give RecipeModule.build a Setting with load_run"
            )
        model = setting.load_run(str(self.teacher))
        known: Setting = model.setting  # type: ignore[assignment]
        if tuple(known.shape) != tuple(setting.shape):
            raise RecipeError(
                f"distillation.teacher={self.teacher} was trained on samples of shape {tuple(known.shape)}, these have "
                f"{tuple(setting.shape)}: choose a run on this data"
            )
        taught = {task.name: task for task in known.tasks if task.kind == "classification"}
        for task in setting.tasks:
            if task.kind != "classification":
                continue
            there = taught.get(task.name)
            if there is None or there.outputs != task.outputs or there.names != task.names:
                what = f"{there.outputs} classes" if there else "none"
                names = " of other names" if there and there.outputs == task.outputs else ""
                raise RecipeError(
                    f"distillation.teacher={self.teacher} knows {what}{names} for target {task.name or 'y'}, which has "
                    f"{task.outputs} classes: choose a run on this data"
                )
        self._model = model.eval().requires_grad_(False)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Ask the teacher, once a step."""
        if self._model is None:
            return batch
        model = self._model.to(module.device)
        x, kind = batch.x, next((p.dtype for p in model.parameters() if p.is_floating_point()), batch.x.dtype)
        with torch.no_grad():
            outputs = model.outputs(x.to(kind) if x.is_floating_point() else x)
        return replace(batch, extra={**batch.extra, self.state_key: outputs})

    def transform_losses(
        self, losses: Mapping[str, Tensor], module: Module, batch: Batch, outputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The mean of both losses, for each classification."""
        changed = dict(losses)
        if (taught := batch.extra.get(self.state_key)) is None:
            return changed
        for task in module.setting.tasks:
            if task.kind == "classification":
                found = distillation_loss(outputs[task.name], taught[task.name], self.temperature)
                self.record(module, f"{task.name}_loss" if task.name else "loss", found)
                changed[task.name] = (1 - self.weight) * losses[task.name] + self.weight * found
        return changed
