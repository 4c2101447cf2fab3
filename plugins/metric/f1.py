"""The F1 score."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score

from plugins.base import Task
from plugins.metric._classification import ClassificationMetric, averaged, expect_average


class F1Score(ClassificationMetric):
    """Measure the F1 score: the harmonic mean of precision and recall, class by class.

    F1_c = 2 TP_c / (2 TP_c + FP_c + FN_c), averaged over the classes that occur among labels or predictions.

    Args:
        average: over the classes: "macro" (each alike), "micro" (each sample alike) or "weighted" (by samples); None: macro, or
            with two classes that of the second one alone.

    Raises:
        RecipeError: another average.
        Refusal: no task is a classification.

    Source: van Rijsbergen, "Information Retrieval", 1979; torchmetrics.
    """

    def __init__(self, average: str | None = None) -> None:
        expect_average(average)
        self.average = average

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return averaged(MulticlassF1Score, task, self.average)
