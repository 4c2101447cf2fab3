"""How sure the right class is ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from plugins.base import Plugin, Refusal, Selection, Stage, Task


class MeanMargin(Metric):
    """The mean over samples of p(right class) − max p(another class), in [−1, 1]."""

    higher_is_better = True
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Probabilities (samples, classes) and labels (samples,)."""
        place = target.long().unsqueeze(1)
        others = preds.scatter(1, place, -torch.inf).amax(1)
        self.total: Any = self.total + (preds.gather(1, place).squeeze(1) - others).double().sum()
        self.count: Any = self.count + len(target)

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count


class Margin(Plugin):
    """Measure by how much the right class is ahead of the best other one.

    See :class:`MeanMargin`.

    Source: Bartlett & Shawe-Taylor, "Generalization performance of support vector machines and other pattern classifiers", 1999.
    """

    stage = Stage.DIAGNOSTICS
    needs_logits = True

    def check(self, selection: Selection) -> None:
        """Refuse data without classes."""
        if not any(task.kind == "classification" for task in selection.setting.tasks):
            raise Refusal("metric/margin compares classes, and the data has none: leave it out")

    def metrics(self, task: Task) -> Mapping[str, Metric]:
        """One object for a classification."""
        return {self.option: MeanMargin()} if task.kind == "classification" else {}
