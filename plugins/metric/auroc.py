"""The area under the ROC curve."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassAUROC, MultilabelAUROC

from plugins.base import Task, declare
from plugins.metric._classification import ClassificationMetric, by_support, by_support_of_labels


class AUROC(ClassificationMetric):
    """Measure the area under the ROC curve, each class against the rest.

    AUROC_c = P(p_c(x) > p_c(x')) + ½ P(p_c(x) = p_c(x')) for a sample x of class c and another x' that is not; NaN where no class has
    samples of both kinds.

    Raises:
        Refusal: no task is a classification.

    Source: Fawcett, "An introduction to ROC analysis", 2006; torchmetrics.
    """

    needs_logits = True

    average: str | None = declare.choice(
        "macro",
        "weighted",
        default=None,
        null="macro, or with two classes that of the second one",
        more="Over the classes that there are samples of: macro counts each alike, weighted by its samples.",
    )
    thresholds: int | None = declare.count(
        "thresholds at which the curve is taken",
        default=None,
        least=2,
        null="exact, by all predictions",
        more="The exact curve keeps all predictions of a split until its end.",
    )

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return by_support(MulticlassAUROC, both=True)(task.outputs, self.average, thresholds=self.thresholds)

    def make_of_labels(self, task: Task) -> Metric:
        """The object for one task of several labels a sample."""
        return by_support_of_labels(MultilabelAUROC, both=True)(task.outputs, self.average, thresholds=self.thresholds)
