"""Recall."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassRecall, MultilabelRecall

from plugins.base import Task, declare
from plugins.metric._classification import ClassificationMetric, averaged, averaged_over_labels


class Recall(ClassificationMetric):
    """Measure recall: which share of the samples of a class are taken for it.

    R_c = TP_c / (TP_c + FN_c), averaged over the classes that occur among labels or predictions.

    Raises:
        Refusal: no task is a classification.

    Source: torchmetrics.
    """

    average: str | None = declare.choice(
        "macro",
        "micro",
        "weighted",
        default=None,
        null="macro, or with two classes that of the second one",
        more="Over the classes: macro counts each alike, micro each sample, weighted by the samples of each.",
    )

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return averaged(MulticlassRecall, task, self.average)

    def make_of_labels(self, task: Task) -> Metric:
        """The object for one task of several labels a sample."""
        return averaged_over_labels(MultilabelRecall, task, self.average)
