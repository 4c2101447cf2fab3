"""Precision."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassPrecision, MultilabelPrecision

from plugins.base import Task, declare
from plugins.metric._classification import ClassificationMetric, averaged, averaged_over_labels


class Precision(ClassificationMetric):
    """Measure precision: which share of the samples taken for a class are of it.

    P_c = TP_c / (TP_c + FP_c), averaged over the classes that occur among labels or predictions; 0 for a class never predicted.

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
        return averaged(MulticlassPrecision, task, self.average)

    def make_of_labels(self, task: Task) -> Metric:
        """The object for one task of several labels a sample."""
        return averaged_over_labels(MultilabelPrecision, task, self.average)
