"""Top-k accuracy."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from plugins.base import Refusal, Selection, Task, expect_count
from plugins.metric._classification import ClassificationMetric


class TopKAccuracy(ClassificationMetric):
    """Measure for which share of the samples the label is among the k most probable classes.

    Args:
        k: classes that count as a prediction, ≥ 1 and fewer than there are classes.

    Raises:
        RecipeError: k out of range.
        Refusal: no task is a classification, or all of its classes would count.

    Source: torchmetrics.
    """

    def __init__(self, k: int = 5) -> None:
        expect_count("k", k)
        self.k = k

    def check(self, selection: Selection) -> None:
        """Refuse a metric that is always 1."""
        super().check(selection)
        for task in selection.setting.tasks:
            if task.kind == "classification" and task.outputs <= self.k:
                raise Refusal(
                    f"{self.state_key}: of {task.outputs} classes the label is always among the {self.k} most probable: type "
                    f"metric.{self.option}.k={max(1, task.outputs - 1)} or less"
                )

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return MulticlassAccuracy(task.outputs, top_k=self.k, average="micro", validate_args=False)
