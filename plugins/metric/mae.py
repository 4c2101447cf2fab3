"""The mean absolute error."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.regression import MeanAbsoluteError as Absolute

from plugins.base import Task
from plugins.metric._regression import RegressionMetric


class MeanAbsoluteError(RegressionMetric):
    """Measure the mean absolute error, in the units of the targets.

    mean |f(x) − y| over samples and columns.

    Raises:
        Refusal: no task is a regression.

    Source: torchmetrics.
    """

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return Absolute()
