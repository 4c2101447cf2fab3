"""Label smoothing (Szegedy et al., 2016)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from plugins.base import (
    Batch,
    Module,
    Plugin,
    Refusal,
    Selection,
    Stage,
    class_probabilities,
    declare,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def smooth(
    target: Int[Tensor, " samples *places"] | Float[Tensor, "samples classes *places"],
    classes: int,
    eps: float,
    spread: str = "others",
) -> Float[Tensor, "samples classes *places"]:
    """Take eps of the probability from each class and spread it over the others, or over all.

    Labels (samples,) or probabilities (samples, classes) → probabilities (samples, classes).
    """
    probabilities = class_probabilities(target, classes)
    if spread == "others":
        share = eps / (classes - 1)
        return (1 - eps - share) * probabilities + share
    return (1 - eps) * probabilities + eps / classes


def smooth_labels(
    target: Bool[Tensor, "samples labels"] | Float[Tensor, "samples labels"], eps: float, spread: str = "others"
) -> Float[Tensor, "samples labels"]:
    """Move each of several labels, or its probability, by eps towards the contrary, or by eps/2."""
    probabilities = target if target.is_floating_point() else target.float()
    share = eps if spread == "others" else eps / 2
    return (1 - 2 * share) * probabilities + share


class LabelSmoothing(Plugin):
    """Train every classification task on targets that leave room for doubt.

    With k classes the true one gets 1 − eps and each other eps/(k − 1) (`others`), or the true one gets 1 − eps + eps/k
    and each other eps/k (`all`). Targets that are probabilities already are smoothed class by class in the same way. Of several labels a
    sample each is a decision between two: one that is there gets 1 − eps, one that is not eps (`others`), or 1 − eps/2 and eps/2 (`all`).

    Raises:
        Refusal: no classification task with two outputs or more.

    Source: Szegedy et al., "Rethinking the Inception architecture", CVPR 2016; lectures A and B.
    """

    stage = Stage.TARGETS
    on_named_inputs = True
    on_class_maps = True

    eps: float = declare.share("probability taken from the true class", default=0.1, off=0.0)
    spread: str = declare.choice(
        "others", "all", default="others", help="others: over the other classes | all: over all of them, as torch does"
    )

    def check(self, selection: Selection) -> None:
        """Refuse data without classes, and a single output for two of them."""
        classifications = [task for task in selection.setting.tasks if task.kind != "regression"]
        if not classifications:
            raise Refusal("regularizer/label_smoothing needs a classification task, and the data has none: leave it out")
        for task in classifications:
            if task.outputs < 2:
                raise Refusal(
                    "regularizer/label_smoothing needs an output for each class, and the model has one for "
                    f"{task.name or 'its task'}: take loss=cross_entropy with two outputs or more, or leave it out"
                )

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Smooth the targets; the labels beside them stay."""
        smoothed = {
            task.name: smooth_labels(batch.targets[task.name], self.eps, self.spread)
            if task.kind == "multilabel"
            else smooth(batch.targets[task.name], task.outputs, self.eps, self.spread)
            for task in module.setting.tasks
            if task.kind != "regression"
        }
        return replace(batch, targets={**batch.targets, **smoothed})
