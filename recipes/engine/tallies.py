"""What a test counts beside its metrics: how sure predictions are and how often right, labels, residuals. Counts alone, so few numbers.

All is counted in whole numbers, on the device, which is never waited for: neither the order of samples nor the number of processes
changes a bit of it. The format in which it is kept has its owner in `recipes/store/tested.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plugins.base import Task
from plugins.counting import Reliability, outcomes, over_all, widest
from plugins.logits import of_task
from recipes.data.loaders import EvaluationLoader
from recipes.data.source import Source
from recipes.engine.parts import Whole

SURE = 15  # bins of a probability, as many as those of metric=calibration_error
CELLS = 40  # bins between the smallest and the largest target; one more at each end holds what lies beyond
SCALES = 10  # of residuals, each half as wide as the one before
INSIDE = 0.99  # share of the residuals that lie within the scale which is kept
MOST_COLUMNS = 16  # numbers of a regression that are looked at


class OfClasses:
    """A classification: how often the most probable class is the true one, by its probability, at each place that has a label."""

    def __init__(self, task: Task, device: torch.device, of_logits: bool) -> None:
        self.task, self.reliability = task, Reliability(device, SURE) if of_logits else None

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count a batch: outputs (samples, classes, *places) and labels (samples, *places)."""
        if self.reliability is not None:
            self.reliability.add(*outcomes(self.task, output, labels))

    def compute(self) -> dict[str, Any]:
        """What was counted, over all processes."""
        reliability = {} if self.reliability is None else {"reliability": self.reliability.compute()}
        return {"kind": self.task.kind, "places": list(self.task.shape), **reliability}


class OfLabels:
    """Several labels a sample: how often each was predicted and there, and how often labels are there, by their probability."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task, self.reliability = task, Reliability(device, SURE)
        self.counts = torch.zeros(task.outputs, 4, dtype=torch.int64, device=device)

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count a batch: outputs and truth values (samples, labels)."""
        there = labels.bool()
        predicted = self.task.hits(output, torch.ones_like(there))
        cells = [(~predicted & ~there), (predicted & ~there), (~predicted & there), (predicted & there)]
        self.counts += torch.stack([cell.sum(0) for cell in cells], 1)
        self.reliability.add(*outcomes(self.task, output, labels))

    def compute(self) -> dict[str, Any]:
        """What was counted, over all processes: of each label true negatives, false positives, false negatives, true positives."""
        names = list(self.task.names) or [str(number) for number in range(self.task.outputs)]
        labels = {"labels": names, "threshold": self.task.threshold, "counts": over_all(self.counts).tolist()}
        return {"kind": self.task.kind, **labels, "reliability": self.reliability.compute()}


class OfNumbers:
    """A regression: predictions against targets and residuals against predictions, in cells; how many targets lie below each quantile.

    Of quantiles without the median, where there is no one prediction, it counts the last alone.

    Args:
        task: the target.
        targets: of all samples of the split, (samples,) or (samples, columns), whose range the cells span.
        levels: of the quantiles that are predicted, if any are.
        device: where it is counted.
    """

    def __init__(self, task: Task, targets: Tensor, levels: tuple[float, ...], device: torch.device) -> None:
        self.task, self.levels, self.wide = task, levels, widest(device)
        columns = targets.reshape(len(targets), -1)[:, :MOST_COLUMNS].to(device, self.wide)
        low, high = columns.amin(0), columns.amax(0)
        self.low, self.high = low.where(low < high, low - 0.5), high.where(low < high, high + 0.5)
        self.columns = len(self.low)
        side = CELLS + 2
        # the last cell of each: what is no number
        self.against = torch.zeros(self.columns * side * side + 1, dtype=torch.int64, device=device)
        self.residuals = torch.zeros(SCALES, self.columns * side * side + 1, dtype=torch.int64, device=device)
        self.below = torch.zeros(self.columns, len(levels), dtype=torch.int64, device=device)
        self.samples = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, output: Tensor, target: Tensor) -> None:
        """Count a batch: outputs (samples, outputs) and numbers (samples,) or (samples, columns)."""
        if not len(output):
            return
        self.samples += len(output)
        if self.levels:
            each = self.task.in_shape(target, output)
            below = (each <= output).unflatten(1, (-1, len(self.levels)))
            self.below += below[:, : self.columns].sum(0)
        if not self.task.has_point:
            return
        point = self.task.point(output).to(self.wide).flatten(1)[:, : self.columns]
        true = target.to(self.wide).reshape(len(output), -1)[:, : self.columns]
        width = self.high - self.low
        predicted = self._cell((point - self.low) / width)
        self._count(self.against, predicted, self._cell((true - self.low) / width), point)
        for scale, counts in enumerate(self.residuals):
            self._count(counts, self._cell(((true - point) / width * 2**scale + 1) / 2), predicted, point)

    def _cell(self, share: Tensor) -> Tensor:
        """The cell of a share of the range; 0 and the last one: beyond it."""
        # the largest target lies in the range, and so in the last cell within
        inside = (share.nan_to_num(0.0) * CELLS).floor().clamp(-1, CELLS).where(share != 1, CELLS - 1)
        return inside.long() + 1

    def _count(self, counts: Tensor, row: Tensor, column: Tensor, point: Tensor) -> None:
        side = CELLS + 2
        number = torch.arange(self.columns, device=row.device)
        cell = ((number * side + row) * side + column).where(point.isfinite(), len(counts) - 1).flatten()
        counts.index_add_(0, cell, torch.ones_like(cell))

    def compute(self) -> dict[str, Any]:
        """What was counted, over all processes: for each column its range and two tables, of the residuals' finest scale that holds them.

        Where there is no one prediction, the number of samples in the place of the tables.
        """
        ranges = list(zip(self.low.tolist(), self.high.tolist(), strict=True))
        below, samples = over_all(self.below).tolist(), int(over_all(self.samples))
        if not self.task.has_point:
            columns = [{"range": [*ends], "samples": samples, "below": each} for ends, each in zip(ranges, below, strict=True)]
            return {"kind": self.task.kind, "levels": list(self.levels), "columns": columns}
        side = CELLS + 2
        against = over_all(self.against)[:-1].view(self.columns, side, side).cpu()
        residuals = over_all(self.residuals)[:, :-1].view(SCALES, self.columns, side, side).cpu()
        total = against.sum((1, 2))
        columns = []
        for number, (low, high) in enumerate(ranges):
            inside = residuals[:, number, 1:-1].sum((1, 2)) >= INSIDE * total[number]
            scale = max([place for place, holds in enumerate(inside.tolist()) if holds], default=0)
            columns.append(
                {
                    "range": [low, high],
                    "residual": (high - low) / 2**scale,
                    "predicted_true": against[number].tolist(),
                    "residual_predicted": residuals[scale, number].tolist(),
                    "below": below[number],
                }
            )
        return {"kind": self.task.kind, "levels": list(self.levels), "columns": columns}


Tally = OfClasses | OfLabels | OfNumbers


def tallies_of(module: Whole, loader: object) -> dict[str, Tally]:
    """What is counted in a test, by task: of classes no probabilities that the loss does not train, of numbers nothing where their range is not known.

    Args:
        module: that is tested.
        loader: of the test; one of ours knows its targets.
    """
    assert module.setting is not None
    source: Source | None = loader.split if isinstance(loader, EvaluationLoader) else None
    labels: Mapping[str, Tensor] = source.labels if source is not None else {}
    found: dict[str, Tally] = {}
    for task in module.setting.tasks:
        loss = of_task(module.loss, task)
        if task.kind == "regression":
            if len(targets := labels.get(task.name, torch.empty(0))) and bool(targets.isfinite().all()):
                levels = task.quantiles or tuple(getattr(loss, "levels", ()))
                found[task.name] = OfNumbers(task, targets, levels, module.device)
        elif task.kind == "multilabel":
            found[task.name] = OfLabels(task, module.device)
        else:
            found[task.name] = OfClasses(task, module.device, getattr(loss, "takes_logits", True))
    return found
