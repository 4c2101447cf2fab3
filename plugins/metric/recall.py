"""Recall."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassRecall

from plugins.base import Task
from plugins.metric._classification import ClassificationMetric, averaged, expect_average


class Recall(ClassificationMetric):
    """Measure recall: which share of the samples of a class are taken for it.

    R_c = TP_c / (TP_c + FN_c), averaged over the classes that occur among labels or predictions.

    Args:
        average: over the classes: "macro" (each alike), "micro" (each sample alike) or "weighted" (by samples); None: macro, or
            with two classes that of the second one alone.

    Raises:
        RecipeError: another average.
        Refusal: no task is a classification.

    Source: torchmetrics.
    """

    def __init__(self, average: str | None = None) -> None:
        expect_average(average)
        self.average = average

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return averaged(MulticlassRecall, task, self.average)
