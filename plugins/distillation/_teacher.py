"""What techniques share that learn from a trained model: it is loaded, asked once a step, and kept out of what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from plugins.base import Batch, Module, Plugin, RecipeError, Refusal, Selection, Setting, Stage, declare
from plugins.inputs import Inputs, alike, described, each

if TYPE_CHECKING:
    from jaxtyping import Float

TEACHER = declare.run_folder(
    "folder of the run that teaches, by its best checkpoint, such as outputs/DATE/TIME-ID",
    null="asked for before the first batch",
)


def distillation_loss(
    student: Float[Tensor, "samples classes *places"], teacher: Float[Tensor, "samples classes *places"], temperature: float
) -> Float[Tensor, " samples *places"]:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) of each sample, or place of it; T² keeps the gradient's scale at any T."""
    student, teacher = ((logits.float() / temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)


class Taught(Plugin):
    """Asks a teacher once a step, after all augmentation; in evaluation mode, not trained, and not in what is saved as a model."""

    stage = Stage.PENALTY
    on_named_inputs = True
    on_class_maps = True

    def __post_init__(self) -> None:
        self._model: Any = None  # a plain attribute, so that it is no part of the module that is trained and saved

    @property
    def asked(self) -> Any:
        """The teacher; None where nothing is trained."""
        return self._model

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Ask the teacher."""
        if self._model is None:
            return batch
        model = self._model.to(module.device)
        kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        x = each(batch.x, lambda x: x.to(kind) if x.is_floating_point() else x)
        with torch.no_grad():
            answer = self.ask(model, x)
        return replace(batch, extra={**batch.extra, self.state_key: answer})

    def ask(self, model: Any, x: Inputs) -> Any:
        """What is kept of the teacher's one forward pass: its outputs, one entry a task."""
        return model.outputs(x)


class TaughtByRun(Taught):
    """The teacher is the best model of a finished run."""

    teacher: str | None

    def check(self, selection: Selection) -> None:
        """Refuse to go on without a teacher."""
        super().check(selection)
        if self.teacher is None:
            raise Refusal(
                f"{self.state_key} needs a trained run to learn from: type distillation.teacher=FOLDER, such as outputs/DATE/TIME-ID"
            )

    def prepare(self, setting: Setting) -> None:
        """Load the teacher, where there is something to train."""
        super().prepare(setting)
        if setting.training_inputs is None:
            return
        if setting.load_run is None:
            raise RecipeError(
                f"{self.state_key} loads its teacher from a run folder: give RecipeModule.build a Setting with load_run"
            )
        model: Any = setting.load_run(str(self.teacher))
        if not alike(model.setting.shape, setting.shape):
            raise RecipeError(
                f"distillation.teacher={self.teacher} was trained on samples of shape {described(model.setting.shape)}, these have "
                f"{described(setting.shape)}: choose a run on this data"
            )
        self.accept(model)
        if (told := self._known(model.setting, setting)) and told not in self.remarks:
            self.remarks = [*self.remarks, told]
        self._model = model.eval().requires_grad_(False)

    def _known(self, there: Setting, here: Setting) -> str:
        """What the teacher has been trained on that is held out here, in words; empty where that is nothing, or not known."""
        if not there.split or not here.split:
            return ""
        named = f"the teacher {self.teacher} was trained on"
        if there.split != here.split:
            return f"{named} other data, or another split of them: it may know samples that are tested here"
        seen = f"{named} the validation samples too: it knows those by which the best model is chosen here"
        return seen if there.trained_on_validation else ""

    def accept(self, model: Any) -> None:
        """Refuse a teacher that has learned something else."""


class TaughtByOutputs(Taught):
    """J = (1 − α) · J_labels + α · T² · KL(softmax(z_teacher / T) ‖ softmax(z / T)) of each classification."""

    needs_logits = True

    temperature: float
    weight: float

    def check(self, selection: Selection) -> None:
        """Refuse data without classes."""
        super().check(selection)
        if not any(task.kind == "classification" for task in selection.setting.tasks):
            raise Refusal(f"{self.state_key} needs a classification task, and the data has none: leave it out")

    def transform_losses(
        self, losses: Mapping[str, Tensor], module: Module, batch: Batch, outputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The mean of both losses, for each classification."""
        changed = dict(losses)
        if (taught := batch.extra.get(self.state_key)) is None:
            return changed
        for task in module.setting.tasks:
            if task.kind == "classification":
                values = distillation_loss(outputs[task.name], taught[task.name], self.temperature)
                found = module.mean(values, batch, task.name)
                self.record(module, f"{task.name}_loss" if task.name else "loss", found)
                changed[task.name] = (1 - self.weight) * losses[task.name] + self.weight * found
        return changed
