"""The coefficient of determination."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from plugins.base import Task
from plugins.metric._regression import RegressionMetric


class Determination(Metric):
    """1 − Σ(f(x) − y)² / Σ(y − ȳ)², averaged over columns; NaN where the targets of a column do not differ.

    torchmetrics' own takes Σy² − (Σy)²/n for the divisor, which is nothing but rounding where targets lie far from 0.
    """

    higher_is_better, is_differentiable, full_state_update = True, True, False
    predicted: list[Tensor]
    true: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("predicted", [], dist_reduce_fx="cat")
        self.add_state("true", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Keep a batch, both (samples, columns)."""
        self.predicted.append(preds)
        self.true.append(target)

    def compute(self) -> Tensor:
        """The mean over the columns."""
        predicted, true = (torch.cat(list(kept)) if isinstance(kept, list) else kept for kept in (self.predicted, self.true))
        left, all_of_it = (predicted - true).square().sum(0), (true - true.mean(0)).square().sum(0)
        return (1 - left / all_of_it.where(all_of_it > 0, torch.nan)).mean()


class R2(RegressionMetric):
    """Measure which share of the targets' variance is explained.

    R² = 1 − Σ(f(x) − y)² / Σ(y − ȳ)², column by column, and the mean of those; 1 is best, 0 is what the mean of the targets gives. NaN
    where the targets do not differ.

    Raises:
        Refusal: no task is a regression.

    Source: scikit-learn's r2_score.
    """

    def make(self, task: Task) -> Metric:
        """The object for one task."""
        return Determination()
