"""The calibration error."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassCalibrationError

from plugins.base import Task, expect_choice, expect_count
from plugins.metric._classification import ClassificationMetric

NORMS = ("l1", "l2", "max")


class CalibrationError(ClassificationMetric):
    """Measure how far the probability of the predicted class is from the share of predictions that are right.

    ECE = Σ_b n_b/n · |acc(b) − conf(b)| over bins b of equal width of the confidence, the largest probability of a sample (norm=l1);
    the root of the mean square (l2), or the largest difference (max, the MCE).

    Args:
        bins: of the confidence, ≥ 1.
        norm: "l1", "l2" or "max".

    Raises:
        RecipeError: bins or norm out of range.
        Refusal: no task is a classification.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; torchmetrics.
    """

    needs_probabilities = True

    def __init__(self, bins: int = 15, norm: str = "l1") -> None:
        expect_count("bins", bins)
        expect_choice("norm", norm, NORMS)
        self.bins, self.norm = bins, norm

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return MulticlassCalibrationError(task.outputs, n_bins=self.bins, norm=self.norm, validate_args=False)  # type: ignore[arg-type]
