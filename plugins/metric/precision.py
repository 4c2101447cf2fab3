"""Precision."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassPrecision

from plugins.base import Task
from plugins.metric._classification import ClassificationMetric, averaged, expect_average


class Precision(ClassificationMetric):
    """Measure precision: which share of the samples taken for a class are of it.

    P_c = TP_c / (TP_c + FP_c), averaged over the classes that occur among labels or predictions; 0 for a class never predicted.

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
        return averaged(MulticlassPrecision, task, self.average)
