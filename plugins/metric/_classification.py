"""What metrics of a classification have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from plugins.base import Plugin, Refusal, Selection, Stage, Task

if TYPE_CHECKING:
    from jaxtyping import Float, Num


class ClassificationMetric(Plugin):
    """A metric of each task that is a classification; a subclass makes the torchmetrics object.

    Raises:
        Refusal: no task is a classification.
    """

    stage = Stage.DIAGNOSTICS

    def check(self, selection: Selection) -> None:
        """Refuse a run without classes."""
        if not any(task.kind == "classification" for task in selection.setting.tasks):
            raise Refusal(
                f"{self.state_key} measures how classes are predicted, and there is none to predict: for a regression type +metric=rmse, mae or r2"
            )

    def metrics(self, task: Task) -> Mapping[str, Metric]:
        """One object for a classification."""
        return {self.option: self.make(task)} if task.kind == "classification" else {}

    def make(self, task: Task) -> Metric:
        """The torchmetrics object, which is given probabilities (samples, classes) and labels (samples,)."""
        raise NotImplementedError


def averaged(kind: Any, task: Task, average: str | None) -> Metric:
    """A torchmetrics object that counts right and wrong predictions, averaged over classes.

    Args:
        kind: its class.
        task: of one target.
        average: "macro", "micro" or "weighted"; None: macro, or of two classes the second one alone, as where the first says no and the second yes.
    """
    if average is not None or task.outputs != 2:
        return kind(num_classes=task.outputs, average=average or "macro", validate_args=False)

    class OfSecond(kind):
        def compute(self) -> Tensor:
            return super().compute()[1]

    return OfSecond(num_classes=2, average="none", validate_args=False)


def over_classes(
    values: Float[Tensor, " classes"], support: Num[Tensor, " classes"], average: str, both: bool = False
) -> Float[Tensor, ""]:
    """The mean of one value a class over the classes that there are samples of; NaN where there is none.

    Args:
        values: by class.
        support: samples of each class.
        average: "macro", each class alike, or "weighted", by its samples.
        both: whether a class also needs samples that are not of it.
    """
    known = (support > 0) & ((support < support.sum()) | torch.tensor(not both, device=support.device))
    weights = known.to(values.dtype) * (support.to(values.dtype) if average == "weighted" else 1.0)
    return values.where(known, 0.0).mul(weights).sum() / weights.sum()  # 0 / 0 is NaN


def by_support(kind: Any, both: bool = False) -> Any:
    """The class of metrics that averages one value a class over the classes that occur, which torchmetrics counts as 0 or 1 if they do not."""

    class Occurring(kind):
        support: Tensor

        def __init__(self, classes: int, over: str | None, **arguments: Any) -> None:
            super().__init__(num_classes=classes, average="none", validate_args=False, **arguments)
            self.over = over
            self.add_state("support", torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")

        def update(self, preds: Tensor, target: Tensor) -> None:
            super().update(preds, target)
            self.support += torch.bincount(target, minlength=len(self.support))

        def compute(self) -> Tensor:
            if not bool(self.support.any()):
                return torch.tensor(torch.nan)
            values = super().compute()
            if self.over is None and len(self.support) == 2:
                known = self.support.sum() > 0 if not both else (self.support > 0).all()
                return values[1].where(known, torch.nan)
            return over_classes(values, self.support, self.over or "macro", both)

    return Occurring
