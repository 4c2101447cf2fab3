"""Top-k accuracy."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from plugins.base import Refusal, Selection, Task, declare
from plugins.metric._classification import ClassificationMetric


class TopKAccuracy(ClassificationMetric):
    """Measure for which share of the samples the label is among the k most probable classes.

    Raises:
        Refusal: no task is a classification, or all of its classes would count.

    Source: torchmetrics.
    """

    k: int = declare.count("classes that count as a prediction", default=5)

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
