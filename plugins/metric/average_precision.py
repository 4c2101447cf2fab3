"""Average precision."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassAveragePrecision

from plugins.base import Task, expect_count
from plugins.metric._classification import ClassificationMetric, by_support, expect_average


class AveragePrecision(ClassificationMetric):
    """Measure average precision, the area under the curve of precision over recall, each class against the rest.

    AP_c = Σ_k (R_k − R_(k−1)) P_k over the thresholds k from the largest to the smallest.

    Args:
        average: over the classes of which there are samples: "macro" (each alike) or "weighted" (by samples); None: macro, or with
            two classes that of the second one alone.
        thresholds: probabilities, equally far apart, at which the curve is taken, ≥ 2, in constant memory; None: all that were predicted,
            which is exact and keeps the predictions of a split until its end.

    Raises:
        RecipeError: another average, or too few thresholds.
        Refusal: no task is a classification.

    Source: torchmetrics; scikit-learn's average_precision_score.
    """

    needs_probabilities = True

    def __init__(self, average: str | None = None, thresholds: int | None = None) -> None:
        expect_average(average, ("macro", "weighted"))
        if thresholds is not None:
            expect_count("thresholds", thresholds, least=2)
        self.average, self.thresholds = average, thresholds

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return by_support(MulticlassAveragePrecision)(task.outputs, self.average, thresholds=self.thresholds)
