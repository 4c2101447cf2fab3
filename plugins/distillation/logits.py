"""Knowledge distillation from logits (Hinton et al., 2015)."""

from __future__ import annotations

from typing import Any

from plugins.base import RecipeError, declare
from plugins.distillation._teacher import TEACHER, TaughtByOutputs, TaughtByRun
from plugins.logits import of_task, trains_logits


class LogitDistillation(TaughtByOutputs, TaughtByRun):
    """Learn from the outputs of a trained run as well as from the labels.

    J = (1 − α) · J_labels + α · T² · KL(softmax(z_teacher / T) ‖ softmax(z / T)), both means over samples, or sums where the loss is one,
    weighted alike where samples have weights, for each classification; a regression keeps its loss. The teacher sees the same batch, after
    all augmentation, once a step: one forward pass. It is in evaluation mode, not trained, and not in this run's checkpoints: to evaluate
    this run it is not needed.

    Raises:
        RecipeError: no such run, one of other samples or other classes, or one of a loss whose outputs are no logits.
        Refusal: no teacher; no classification task; a loss whose outputs are no logits.

    Source: Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015.
    """

    teacher: str | None = TEACHER
    temperature: float = declare.number("T, how far probabilities are levelled before they are compared", default=4.0, above=0)
    weight: float = declare.share("α, the share of the teacher in the loss", default=0.5, off=0.0)

    def accept(self, model: Any) -> None:
        """Refuse a teacher of other classes, and one that makes no logits of them."""
        taught = {task.name: task for task in model.setting.tasks if task.kind == "classification"}
        for task in self.setting.tasks:
            if task.kind != "classification":
                continue
            there = taught.get(task.name)
            if there is None or (there.outputs, there.names, there.shape) != (task.outputs, task.names, task.shape):
                what = f"{there.outputs} classes" if there else "none"
                if there and there.outputs == task.outputs:
                    what += " of other names" if there.names != task.names else f" for each of {there.shape} places"
                raise RecipeError(
                    f"distillation.teacher={self.teacher} knows {what} for target {task.name or 'y'}, which has "
                    f"{task.outputs} classes: choose a run on this data"
                )
            if not trains_logits(getattr(model, "loss", None), there):
                raise RecipeError(
                    f"distillation.teacher={self.teacher} was trained with {type(of_task(model.loss, there)).__name__}, whose outputs are no logits to make "
                    f"probabilities of: choose a run of loss=cross_entropy, or type +distillation=features"
                )
