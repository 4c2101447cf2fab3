"""How good the parts of a prediction are, beside the whole: accuracy, likelihood and calibration, counted in sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics import Metric

from plugins.base import Batch, Module, Task

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Num, Shaped

BINS = 15  # of the confidence, as many as those of metric=calibration_error
SMALLEST = 1e-38  # probability of which a logarithm is taken


def sums_of_classes(
    p: Float[Tensor, "samples classes *places"],
    labels: Num[Tensor, " samples *places"],
    known: Bool[Tensor, " samples *places"],
) -> Float[Tensor, "15 4"]:
    """For each bin of the confidence: how many labels, how many of them right, Σ of the confidence, Σ −ln p of the true class.

    Labels that are not `known` do not count. A bin of the width 1/15 has its lower end.
    """
    p, labels = p.movedim(1, -1)[known], labels[known].long()
    confidence, decided = p.max(1)
    truth = -p.gather(1, labels.unsqueeze(1)).squeeze(1).clamp_min(SMALLEST).log()
    values = torch.stack([torch.ones_like(truth), (decided == labels).to(p.dtype), confidence, truth], 1)
    edges = torch.linspace(0, 1, BINS + 1, device=p.device, dtype=p.dtype)
    place = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, BINS - 1)
    return values.new_zeros(BINS, 4).index_add_(0, place, values)


def sums_of_labels(
    p: Float[Tensor, "samples labels"], there: Shaped[Tensor, "samples labels"], threshold: float
) -> Float[Tensor, "15 4"]:
    """The same of several labels a sample, all in the first bin; without a confidence."""
    there = there.to(p.dtype)
    truth = -(there * p.clamp_min(SMALLEST).log() + (1 - there) * (1 - p).clamp_min(SMALLEST).log())
    right = ((p >= threshold) == there.bool()).to(p.dtype)
    return _in_one_bin(torch.ones_like(truth), right, torch.zeros_like(truth), truth)


def sums_of_numbers(
    predicted: Float[Tensor, " samples *columns"], true: Num[Tensor, " samples *columns"]
) -> Float[Tensor, "15 4"]:
    """Of a regression how many numbers there are and Σ (ŷ − y)², in the first bin."""
    error = (predicted - true.to(predicted.dtype)).square()
    return _in_one_bin(torch.ones_like(error), torch.zeros_like(error), torch.zeros_like(error), error)


def _in_one_bin(*values: Tensor) -> Tensor:
    found = values[0].new_zeros(BINS, 4)
    found[0] = torch.stack([value.sum() for value in values])
    return found


def sums_of(task: Task, predicted: Tensor, labels: Tensor) -> Tensor:
    """What is counted of a task, (15, 4): its probabilities, or numbers, and the true labels."""
    predicted = predicted.to(torch.float32 if predicted.device.type == "mps" else torch.float64)
    if task.kind == "classification":
        return sums_of_classes(predicted, labels, task.known(labels))
    if task.kind == "multilabel":
        return sums_of_labels(predicted, labels, task.threshold)
    found = task.point(predicted)
    return sums_of_numbers(found, labels.reshape(found.shape))


def accuracy(sums: Float[Tensor, "parts 15 4"]) -> Float[Tensor, " parts"]:
    """The share that is right."""
    return sums[..., 1].sum(-1) / sums[..., 0].sum(-1)


def mean_of_last(sums: Float[Tensor, "parts 15 4"]) -> Float[Tensor, " parts"]:
    """The mean of what the last column adds up: −ln p of the truth, or the squared error."""
    return sums[..., 3].sum(-1) / sums[..., 0].sum(-1)


def calibration_error(sums: Float[Tensor, "parts 15 4"]) -> Float[Tensor, " parts"]:
    """Σ_b n_b/n · |acc(b) − conf(b)|, the expected calibration error."""
    return (sums[..., 1] - sums[..., 2]).abs().sum(-1) / sums[..., 0].sum(-1)


NUMBERS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    "classification": {"acc": accuracy, "nll": mean_of_last, "ece": calibration_error},
    "multilabel": {"acc": accuracy, "nll": mean_of_last},
    "regression": {"mse": mean_of_last},
}


class OfParts(Metric):
    """One number of some of the parts of a prediction, the mean of it where they are several.

    It takes no predictions: what these were made of has been counted by who made them.

    Args:
        compute_of: makes the number of each part of its sums.
        counted: the sums (parts, 15, 4) of the batch that is measured.
        parts: how many there are.
        rows: the parts whose number it is.
    """

    sums: Tensor
    full_state_update = False

    def __init__(self, compute_of: Callable[[Tensor], Tensor], counted: Callable[[], Tensor], parts: int, rows: slice) -> None:
        super().__init__()
        self.compute_of, self.counted, self.rows = compute_of, counted, rows
        self.add_state("sums", torch.zeros(parts, BINS, 4), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Add what was counted of a batch."""
        self.sums = self.sums + self.counted().to(self.sums)

    def compute(self) -> Tensor:
        """The number."""
        return self.compute_of(self.sums)[self.rows].mean()


def score(module: Module, batches: Iterator[Batch]) -> float:
    """The share of labels that are predicted right, of a regression minus the mean squared error; over tasks the mean."""
    sums: dict[str, tuple[float, int]] = {}
    for batch in batches:
        for task in module.setting.tasks:
            output, labels = module.outputs(batch.x)[task.name], batch.labels[task.name]
            if task.kind == "regression":
                values = -(task.point(output) - labels.reshape(task.point(output).shape)).double().square()
            else:
                values = task.hits(output, labels).double()
                values = values[task.known(labels)] if task.kind == "classification" else values
            total, count = sums.get(task.name, (0.0, 0))
            sums[task.name] = total + float(values.sum()), count + values.numel()
    return sum(total / max(count, 1) for total, count in sums.values()) / len(sums)
