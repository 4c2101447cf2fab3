"""Cohen's kappa."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassCohenKappa

from plugins.base import Task, declare
from plugins.metric._classification import ClassificationMetric


class CohenKappa(ClassificationMetric):
    """Measure how far predictions and labels agree beyond chance.

    κ = (p_o − p_e) / (1 − p_e) of the share p_o in which they agree and that p_e which would agree by chance.

    Raises:
        Refusal: no task is a classification.

    Source: Cohen, "A coefficient of agreement for nominal scales", 1960; torchmetrics.
    """

    weights: str | None = declare.choice(
        "linear", "quadratic", default=None, help="of a disagreement, by the distance of the classes", null="all alike"
    )

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return MulticlassCohenKappa(task.outputs, weights=self.weights, validate_args=False)  # type: ignore[arg-type]
