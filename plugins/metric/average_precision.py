"""Average precision."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassAveragePrecision, MultilabelAveragePrecision

from plugins.base import Task, declare
from plugins.metric._classification import ClassificationMetric, by_support, by_support_of_labels


class AveragePrecision(ClassificationMetric):
    """Measure average precision, the area under the curve of precision over recall, each class against the rest.

    AP_c = Σ_k (R_k − R_(k−1)) P_k over the thresholds k from the largest to the smallest.

    Raises:
        Refusal: no task is a classification.

    Source: torchmetrics; scikit-learn's average_precision_score.
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
        return by_support(MulticlassAveragePrecision)(task.outputs, self.average, thresholds=self.thresholds)

    def make_of_labels(self, task: Task) -> Metric:
        """The object for one task of several labels a sample."""
        return by_support_of_labels(MultilabelAveragePrecision)(task.outputs, self.average, thresholds=self.thresholds)
