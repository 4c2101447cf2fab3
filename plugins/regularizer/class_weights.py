"""Class weights: rare classes count as much as frequent ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Batch, Module, Plugin, RecipeError, Refusal, Selection, Setting, Stage, Task, declare
from plugins.data import of_classes

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def balanced_weights(counts: Int[Tensor, " classes"]) -> Float[Tensor, " classes"]:
    """w_c = n / (k · n_c) with k classes that occur; one that does not is weighted as if it occurred once."""
    return counts.sum() / ((counts > 0).sum() * counts.clamp(min=1)).double()


def _are_weights(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or not any(value):
        return False
    return all(isinstance(each, (int, float)) and not isinstance(each, bool) and 0 <= each < math.inf for each in value)


class ClassWeights(Plugin):
    """Weigh each sample's loss by its class.

    J = Σᵢ w_{yᵢ} Jᵢ / Σᵢ w_{yᵢ}, over all samples of a step, however it is cut; balanced: w_c = n / (k · n_c), with n_c of the n
    training samples in class c, of k. Mixed samples have the weights of both; smoothed labels that of their class. It multiplies
    `Batch.weight`. What is logged as loss is not weighted, so that runs compare. Of several tasks each has the weights of its own classes.

    Raises:
        RecipeError: not a weight for each class; balanced where the training targets are not known before.
        Refusal: no classification task.

    Source: King & Zeng, "Logistic regression in rare events data", Political Analysis 2001; scikit-learn's compute_class_weight.
    """

    stage = Stage.TARGETS
    on_named_inputs = True
    on_class_maps = True

    mode: str | Sequence[float] = declare.value(
        "balanced: inversely to how often the class occurs | [1,2,0.5]: a weight for each class",
        "balanced, or a list of finite weights ≥ 0 that are not all 0",
        lambda value: value == "balanced" or _are_weights(value),
        default="balanced",
        more="Only the ratios of weights matter.",
    )

    def __post_init__(self) -> None:
        self._weights: dict[str, Tensor] = {}

    def check(self, selection: Selection) -> None:
        """Refuse data without classes, of which each sample has one."""
        kinds = {task.kind for task in selection.setting.tasks}
        if "multilabel" in kinds and "classification" not in kinds:
            raise Refusal(
                "regularizer/class_weights weighs a sample by its one class, and these samples have several labels: type loss=bce with "
                "loss.pos_weight=[NUMBERS], a weight for each label that is there"
            )
        if not any(task.kind == "classification" for task in selection.setting.tasks):
            raise Refusal("regularizer/class_weights needs a classification task, and the data has none: leave it out")

    def prepare(self, setting: Setting) -> None:
        """Count the classes of the training split."""
        super().prepare(setting)
        tasks = [task for task in setting.tasks if task.kind == "classification"]
        if not isinstance(self.mode, str):
            for task in tasks:
                if len(self.mode) != task.outputs:
                    raise RecipeError(
                        f"regularizer.class_weights.mode must have a weight for each of the {task.outputs} classes"
                        f"{f' of {task.name}' if task.name else ''}, got {len(self.mode)}"
                    )
            self._weights = {task.name: torch.tensor(self.mode, dtype=torch.float32) for task in tasks}
        elif setting.training_targets is not None:
            counts = count_classes(setting, tasks)
            self._weights = {name: balanced_weights(count).float() for name, count in counts.items()}
        elif setting.training_inputs is not None:
            raise RecipeError(
                "regularizer/class_weights cannot count the classes of a loader without a length: give a weight for each class, mode=[…]"
            )

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Multiply the weight of each sample by that of its class."""
        weight = dict(batch.weight)
        for name, of_class in self._weights.items():
            target = batch.targets[name]
            of_class = self._weights[name] = of_class.to(target.device)
            weight[name] = batch.weighted(name, of_classes(of_class, target))[name]
        return replace(batch, weight=weight)


def count_classes(setting: Setting, tasks: Sequence[Task]) -> dict[str, Tensor]:
    """How many training samples are in each class, by task; labels that name no class, as those to be ignored, do not count."""
    assert setting.training_targets is not None
    counts = {task.name: torch.zeros(task.outputs, dtype=torch.int64) for task in tasks}
    for targets in setting.training_targets():
        for task in tasks:
            labels = targets[task.name].flatten().long().cpu()
            counts[task.name] += torch.bincount(labels[task.known(labels)], minlength=task.outputs)
    return counts
