"""Cohen's kappa."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassCohenKappa

from plugins.base import Task, expect_choice
from plugins.metric._classification import ClassificationMetric

WEIGHTS = ("linear", "quadratic")


class CohenKappa(ClassificationMetric):
    """Measure how far predictions and labels agree beyond chance.

    κ = (p_o − p_e) / (1 − p_e) of the share p_o in which they agree and that p_e which would agree by chance.

    Args:
        weights: of a disagreement between two classes in an order: "linear" or "quadratic" in their distance; None: all alike.

    Raises:
        RecipeError: other weights.
        Refusal: no task is a classification.

    Source: Cohen, "A coefficient of agreement for nominal scales", 1960; torchmetrics.
    """

    def __init__(self, weights: str | None = None) -> None:
        if weights is not None:
            expect_choice("weights", weights, WEIGHTS)
        self.weights = weights

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return MulticlassCohenKappa(task.outputs, weights=self.weights, validate_args=False)  # type: ignore[arg-type]
