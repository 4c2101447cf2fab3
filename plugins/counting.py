"""How often predictions are right, by the probability that they were given: counted in whole numbers, so that no order changes a bit."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from plugins.data import Task

UNITS = 2**32  # of a sum of probabilities, which is a whole number of such parts


def widest(device: torch.device) -> torch.dtype:
    """The largest kind of floats that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def over_all(counts: Tensor) -> Tensor:
    """Counts added up over all processes."""
    found = counts.clone()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(found)
    return found


def precise(output: Tensor) -> Tensor:
    """Outputs with at least 32 bits, of which their probabilities are made."""
    return output.to(torch.promote_types(output.dtype, torch.float32))


def outcomes(task: Task, output: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of each prediction its probability, whether it is right (of several labels: whether the label is there), and whether it has a label; None: each has.

    Args:
        task: a classification, whose predictions are the most probable classes, or of several labels a sample, each of which is predicted.
        output: logits (samples, outputs, *places).
        labels: (samples, *places), or truth values (samples, labels).
    """
    if task.kind == "multilabel":
        return task.probabilities(precise(output)), labels.bool(), None
    probability, decided = task.probabilities(precise(output)).max(1)
    return probability, decided == labels, task.known(labels)


class Reliability:
    """How often a prediction is right, by the probability that it was given, in bins of equal width that hold their upper end."""

    def __init__(self, device: torch.device, bins: int) -> None:
        self.edges = torch.linspace(0, 1, bins + 1, dtype=widest(device), device=device)[1:-1]
        self.counts = torch.zeros(bins + 1, 3, dtype=torch.int64, device=device)  # the last row: what does not count

    def add(self, probability: Tensor, right: Tensor, known: Tensor | None = None) -> None:
        """Count predictions of any shape; those that are not `known` do not count."""
        p = probability.to(self.edges.dtype).flatten()
        place = torch.bucketize(p, self.edges)
        place = place.where(p.isfinite() if known is None else p.isfinite() & known.flatten(), len(self.counts) - 1)
        parts = (p.nan_to_num(0.0) * UNITS).round().long()
        self.counts.index_add_(0, place, torch.stack([torch.ones_like(parts), right.flatten().long(), parts], 1))

    def compute(self) -> dict[str, Any]:
        """For each bin the number of predictions, of those that were right, and the sum of the probabilities, over all processes."""
        samples, right, parts = over_all(self.counts)[:-1].T.tolist()
        return {"samples": samples, "right": right, "sums": [part / UNITS for part in parts]}
