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
    """A metric of each task that is a classification, or has several labels a sample; a subclass makes the torchmetrics object.

    Raises:
        Refusal: no task is a classification.
    """

    stage = Stage.DIAGNOSTICS

    def check(self, selection: Selection) -> None:
        """Refuse a run without classes, and one with several labels a sample where the metric is not defined for them."""
        kinds = {task.kind for task in selection.setting.tasks}
        if "multilabel" in kinds and "classification" not in kinds and not self.takes_labels:
            raise Refusal(
                f"{self.state_key} measures predictions of one class a sample, and these samples have several labels: type +metric=f1, auroc, "
                f"average_precision, precision or recall"
            )
        if kinds == {"regression"}:
            raise Refusal(
                f"{self.state_key} measures how classes are predicted, and there is none to predict: for a regression type +metric=rmse, mae or r2"
            )

    def metrics(self, task: Task) -> Mapping[str, Metric]:
        """One object for a classification."""
        if task.kind == "multilabel" and self.takes_labels:
            return {self.option: self.make_of_labels(task)}
        return {self.option: self.make(task)} if task.kind == "classification" else {}

    def make(self, task: Task) -> Metric:
        """The torchmetrics object, which is given probabilities (samples, classes) and labels (samples,)."""
        raise NotImplementedError

    def make_of_labels(self, task: Task) -> Metric:
        """The torchmetrics object of several labels a sample, which is given probabilities and labels 0 and 1, both (samples, labels)."""
        raise NotImplementedError

    @property
    def takes_labels(self) -> bool:
        """Whether it is defined for several labels a sample."""
        return type(self).make_of_labels is not ClassificationMetric.make_of_labels


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


def averaged_over_labels(kind: Any, task: Task, average: str | None) -> Metric:
    """The same of several labels a sample; macro, and None, is over the labels that some samples have or are predicted to have."""
    if average in ("micro", "weighted"):
        return kind(num_labels=task.outputs, threshold=task.threshold, average=average, validate_args=False)

    class OfOccurring(kind):
        def compute(self) -> Tensor:
            return over_classes(super().compute(), self.tp + self.fp + self.fn, "macro")

    return OfOccurring(num_labels=task.outputs, threshold=task.threshold, average="none", validate_args=False)


def over_classes(
    values: Float[Tensor, " classes"], support: Num[Tensor, " classes"], average: str, below: Tensor | float = torch.inf
) -> Float[Tensor, ""]:
    """The mean of one value a class over the classes that there are samples of; NaN where there is none.

    Args:
        values: by class.
        support: samples of each class.
        average: "macro", each class alike, or "weighted", by its samples.
        below: a class with so many samples, or more, does not count.
    """
    known = (support > 0) & (support < below)
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
                known = (self.support > 0).all() if both else self.support[1] > 0
                return values[1].where(known, torch.nan)
            return over_classes(values, self.support, self.over or "macro", self.support.sum() if both else torch.inf)

    return Occurring


def by_support_of_labels(kind: Any, both: bool = False) -> Any:
    """As `by_support`, of several labels a sample: averages over the labels that some samples have, or with `both` some and not all."""

    class Occurring(kind):
        support: Tensor
        samples: Tensor

        def __init__(self, labels: int, over: str | None, **arguments: Any) -> None:
            super().__init__(num_labels=labels, average="none", validate_args=False, **arguments)
            self.over = over
            self.add_state("support", torch.zeros(labels, dtype=torch.long), dist_reduce_fx="sum")
            self.add_state("samples", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

        def update(self, preds: Tensor, target: Tensor) -> None:
            super().update(preds, target)
            self.support += target.sum(0)
            self.samples += len(target)

        def compute(self) -> Tensor:
            if not bool(self.support.any()):
                return torch.tensor(torch.nan)
            values = super().compute()
            return over_classes(values, self.support, self.over or "macro", self.samples if both else torch.inf)

    return Occurring
