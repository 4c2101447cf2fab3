"""Means, confusion matrices and histograms: counted on the device, read only when asked for, small in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from plugins.base import Task
from plugins.counting import widest

BINS = 64  # of a histogram
PART = "\t"  # between a number's name and that of a part of it
PIECE = 2**18  # values that are sorted into bins at a time: several times faster than all of many millions at once


class Means:
    """Running means of several numbers, kept as sums on their device and read only when asked for.

    Sums have 64 bits, so that a long window loses nothing; where a device has no such numbers (Apple's MPS) they have 32, and what
    is lost at each addition is kept beside them (Kahan and Babuska's compensated sum, in the form of Neumaier, 1974).

    A number may have parts, such as the loss of each task, where these are means over different samples: it is their sum.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.lost: dict[str, Tensor] = {}  # by rounding, where sums have 32 bits
        self.counts: dict[str, int | float | Tensor] = {}

    def add(self, name: str, value: Tensor, samples: float | Tensor, summed: bool = False, part: str = "") -> None:
        """Add a batch's mean, or its sum over samples where `summed`; samples may be weighted, as their number is."""
        value = value.detach().to(widest(value.device))
        if isinstance(samples, Tensor):
            samples = samples.detach().to(widest(samples.device))
            value = value if summed else value.where(samples != 0, 0.0)
        elif samples == 0 and not summed:  # a rank that got no sample: the mean of nothing is NaN
            value = torch.zeros_like(value)
        value = value if summed else value * samples
        name = f"{name}{PART}{part}" if part else name
        if name not in self.sums:
            self.sums[name], self.counts[name] = value, samples
            return
        before = self.sums[name].to(value)  # of a checkpoint it is on the CPU
        self.sums[name] = total = before + value
        seen = self.counts[name]
        self.counts[name] = (seen.to(samples) if isinstance(seen, Tensor) and isinstance(samples, Tensor) else seen) + samples
        if total.dtype != torch.float64:
            lost = torch.where(before.abs() >= value.abs(), (before - total) + value, (value - total) + before)
            self.lost[name] = self.lost.get(name, 0.0) + lost

    def add_all(self, other: Means) -> None:
        """Add what was counted elsewhere."""
        for name, value in other.sums.items():
            self.add(name, value, other.counts[name], summed=True)
            if name in other.lost:
                self.lost[name] = self.lost.get(name, 0.0) + other.lost[name]

    def _sum(self, name: str) -> float | Tensor:
        """A sum with what rounding took from it."""
        total = self.sums[name]
        if total.dtype == torch.float64 or name not in self.lost:
            return total.double() if widest(total.device) == torch.float64 else float(total)
        return float(total) + float(self.lost[name])

    def _numbers(self) -> Tensor:
        """Sums and counts of this rank, exactly."""
        sums = torch.stack([torch.as_tensor(self._sum(name), dtype=torch.float64) for name in self.sums])
        if not any(isinstance(count, Tensor) for count in self.counts.values()):
            return torch.stack([sums, torch.tensor([*self.counts.values()], dtype=torch.float64, device=sums.device)])
        counts = [torch.as_tensor(count).to(sums.device, torch.float64) for count in self.counts.values()]
        return torch.stack([sums, torch.stack(counts)])

    def compute(self) -> dict[str, float]:
        """The means over all samples of all ranks."""
        if not self.sums:
            return {}
        both = self._numbers()
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(both)
        return _together(zip(self.sums, *both.tolist(), strict=True))

    def since(self, earlier: Means) -> dict[str, float]:
        """The means, on this rank, over what was added after `earlier` was copied; nothing where nothing was."""
        counts = {name: float(count - earlier.counts.get(name, 0)) for name, count in self.counts.items()}
        return _together(
            (name, float(self._sum(name) - (earlier._sum(name) if name in earlier.sums else 0.0)), count)
            for name, count in counts.items()
            if count
        )

    def copy(self) -> Means:
        """A snapshot; sums are replaced, never changed in place, so sharing them is safe."""
        twin = Means()
        twin.sums, twin.lost, twin.counts = dict(self.sums), dict(self.lost), dict(self.counts)
        return twin

    def state_dict(self) -> dict[str, Any]:
        """The sums of each rank and its counts, as plain numbers."""
        if not self.sums:
            return {}
        own = self._numbers()
        ranks = [own]
        if dist.is_initialized() and dist.get_world_size() > 1:
            ranks = [torch.empty_like(own) for _ in range(dist.get_world_size())]
            dist.all_gather(ranks, own)
        sums, counts = torch.stack(ranks, 1).transpose(1, 2).tolist()
        return {name: [total, count] for name, total, count in zip(self.sums, sums, counts, strict=True)}

    @classmethod
    def from_state(cls, state: dict[str, Any], rank: int = 0, world: int = 1) -> Means:
        """What `state_dict` gave: each rank goes on with its own; where their number has changed the first has it all."""
        means = cls()
        for name, (totals, counts) in state.items():
            if not isinstance(totals, list):  # older checkpoints have the sums of all
                totals, counts = [totals], [counts]
            whose = slice(rank, rank + 1) if len(totals) == world else slice(None) if rank == 0 else slice(0)
            means.sums[name] = torch.tensor(sum(totals[whose]), dtype=torch.float64)
            means.counts[name] = _whole(sum(counts[whose]))
        return means


def _together(sums: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """The means of names, sums and counts; those of a number's parts added up."""
    found: dict[str, float] = {}
    for name, total, count in sums:
        of = name.partition(PART)[0]
        found[of] = found.get(of, 0.0) + total / (count or 1.0)
    return found


def _whole(count: float) -> int | float:
    return int(count) if count == int(count) else count


class Confusion:
    """How often samples of one class (row) were taken for another (column)."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task, self.classes = task, task.outputs
        self.counts = torch.zeros(self.classes**2 + 1, dtype=torch.int64, device=device)  # the last one: no class at all

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        """Count a batch: outputs (samples, classes, *places), the largest of which is the prediction, and labels (samples, *places)."""
        cell = labels.long() * self.classes + outputs.argmax(1)
        cell = cell.where(self.task.known(labels), self.classes * self.classes)  # such as one to be ignored
        cell = cell.flatten()
        self.counts.index_add_(0, cell, torch.ones_like(cell))  # bincount would wait for the device

    def compute(self) -> list[list[int]]:
        """The matrix over all samples of all ranks."""
        counts = self.counts[:-1].clone()
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(counts)
        return counts.view(self.classes, self.classes).tolist()


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each of equally wide bins between the smallest and the largest; no device is waited for.

    NaN and infinity are not counted; where all values are the same, the bins reach half a unit to either side.
    """

    low: Tensor
    high: Tensor
    counts: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, values: Tensor) -> Histogram:
        """The histogram of values of any shape."""
        values = values.flatten()
        finite = values.isfinite()
        counts = torch.zeros(BINS + 1, dtype=torch.int64, device=values.device)  # the last one: what is not finite
        if not len(values):
            return cls(torch.tensor(0.0), torch.tensor(0.0), counts[:-1])
        wide = widest(values.device)
        low = values.where(finite, torch.inf).amin().to(wide)
        high = values.where(finite, -torch.inf).amax().to(wide)
        low, high = low.where(low < high, low - 0.5), high.where(low < high, high + 0.5)
        for piece, known in zip(values.split(PIECE), finite.split(PIECE), strict=True):
            place = ((piece.to(wide) - low) * (BINS / (high - low))).long().clamp(0, BINS - 1).where(known, BINS)
            counts.index_add_(0, place, torch.ones_like(place))
        return cls(low, high, counts[:-1])

    def read(self) -> tuple[float, float, list[int]] | None:
        """The two ends and the counts as plain numbers; None where there was no finite value."""
        counts = self.counts.tolist()
        return (float(self.low), float(self.high), counts) if any(counts) else None

    def state_dict(self) -> list[Any]:
        """Plain numbers."""
        return [float(self.low), float(self.high), self.counts.tolist()]

    @classmethod
    def from_state(cls, state: list[Any]) -> Histogram:
        """What `state_dict` gave."""
        low, high, counts = state
        ends = torch.tensor([low, high], dtype=torch.float64)
        return cls(ends[0], ends[1], torch.tensor(counts, dtype=torch.int64))
