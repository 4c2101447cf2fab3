"""The F1 score."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score, MultilabelF1Score

from plugins.base import Task, declare
from plugins.metric._classification import ClassificationMetric, averaged, averaged_over_labels


class F1Score(ClassificationMetric):
    """Measure the F1 score: the harmonic mean of precision and recall, class by class.

    F1_c = 2 TP_c / (2 TP_c + FP_c + FN_c), averaged over the classes that occur among labels or predictions.

    Raises:
        Refusal: no task is a classification.

    Source: van Rijsbergen, "Information Retrieval", 1979; torchmetrics.
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
        return averaged(MulticlassF1Score, task, self.average)

    def make_of_labels(self, task: Task) -> Metric:
        """The object for one task of several labels a sample."""
        return averaged_over_labels(MultilabelF1Score, task, self.average)
