"""The calibration error."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassCalibrationError

from plugins.base import Task, declare
from plugins.metric._classification import ClassificationMetric


class ClosedBins(MulticlassCalibrationError):
    """The calibration error whose last bin holds 1, for which torchmetrics has one more."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take probabilities (samples, classes) and labels (samples,)."""
        super().update(preds, target)
        confidences = self.confidences[-1]
        self.confidences[-1] = confidences.clamp_max(1 - torch.finfo(confidences.dtype).eps / 2)  # the largest number below 1


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
        return ClosedBins(task.outputs, n_bins=self.bins, norm=self.norm, validate_args=False)  # type: ignore[arg-type]
