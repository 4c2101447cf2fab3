"""The area under the ROC curve."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassAUROC

from plugins.base import Task, expect_count
from plugins.metric._classification import ClassificationMetric, by_support, expect_average


class AUROC(ClassificationMetric):
    """Measure the area under the ROC curve, each class against the rest.

    AUROC_c = P(p_c(x) > p_c(x')) + ½ P(p_c(x) = p_c(x')) for a sample x of class c and another x' that is not; NaN where no class has
    samples of both kinds.

    Args:
        average: over the classes of which there are samples: "macro" (each alike) or "weighted" (by samples); None: macro, or with
            two classes that of the second one alone.
        thresholds: probabilities, equally far apart, at which the curve is taken, ≥ 2, in constant memory; None: all that were predicted,
            which is exact and keeps the predictions of a split until its end.

    Raises:
        RecipeError: another average, or too few thresholds.
        Refusal: no task is a classification.

    Source: Fawcett, "An introduction to ROC analysis", 2006; torchmetrics.
    """

    needs_probabilities = True

    def __init__(self, average: str | None = None, thresholds: int | None = None) -> None:
        expect_average(average, ("macro", "weighted"))
        if thresholds is not None:
            expect_count("thresholds", thresholds, least=2)
        self.average, self.thresholds = average, thresholds

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return by_support(MulticlassAUROC, both=True)(task.outputs, self.average, thresholds=self.thresholds)
