"""The calibration error."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassCalibrationError

from plugins.base import Task, declare
from plugins.metric._classification import ClassificationMetric


class CalibrationError(ClassificationMetric):
    """Measure how far the probability of the predicted class is from the share of predictions that are right.

    ECE = Σ_b n_b/n · |acc(b) − conf(b)| over bins b of equal width of the confidence, the largest probability of a sample (norm=l1);
    the root of the mean square (l2), or the largest difference (max, the MCE).

    Raises:
        Refusal: no task is a classification.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; torchmetrics.
    """

    needs_logits = True

    bins: int = declare.count("bins of the confidence", default=15)
    norm: str = declare.choice("l1", "l2", "max", default="l1", help="l1: expected error | l2 | max: largest error")

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return MulticlassCalibrationError(task.outputs, n_bins=self.bins, norm=self.norm, validate_args=False)  # type: ignore[arg-type]
