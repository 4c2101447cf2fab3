"""The root of the mean squared error."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.regression import MeanSquaredError

from plugins.base import Task
from plugins.metric._regression import RegressionMetric


class RootMeanSquaredError(RegressionMetric):
    """Measure the root of the mean squared error, in the units of the targets.

    (mean (f(x) − y)²)^½ over samples and columns.

    Raises:
        Refusal: no task is a regression.

    Source: torchmetrics.
    """

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return MeanSquaredError(squared=False)
