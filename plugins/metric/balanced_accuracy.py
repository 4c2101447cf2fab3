"""Balanced accuracy."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassRecall

from plugins.base import Task
from plugins.metric._classification import ClassificationMetric, by_support


class BalancedAccuracy(ClassificationMetric):
    """Measure accuracy with each class counted alike, however many samples it has.

    1/k · Σ_c TP_c / n_c over the k classes that there are samples of.

    Raises:
        Refusal: no task is a classification.

    Source: Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010; scikit-learn's balanced_accuracy_score.
    """

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return by_support(MulticlassRecall)(task.outputs, "macro")
