"""Means over samples that cost a step next to nothing and survive a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def correct(outputs: Tensor, labels: Tensor) -> Tensor:
    """How many samples of a batch are classified right: the label is where the output is largest."""
    return (outputs.argmax(1) == labels).sum()


class Means:
    """Running means of several numbers, kept as sums on their device and read only when asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor, samples: int, summed: bool = False) -> None:
        """Add a batch's mean, or its sum over samples where `summed`."""
        value = value.detach() if summed else value.detach() * samples
        if samples == 0 and not summed:  # a rank that got no sample: the mean of nothing is NaN
            value = torch.zeros_like(value)
        if name in self.sums:
            self.sums[name] = self.sums[name] + value.to(torch.float32)
            self.counts[name] += samples
        else:
            self.sums[name], self.counts[name] = value.to(torch.float32), samples

    def _reduced(self) -> tuple[list[float], list[float]]:
        """Sums and counts over all ranks."""
        numbers = torch.stack([*self.sums.values()]).double()
        both = torch.stack([numbers, torch.tensor([*self.counts.values()], dtype=torch.float64, device=numbers.device)])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(both)
        sums, counts = both.tolist()
        return sums, counts

    def compute(self) -> dict[str, float]:
        """The means over all samples of all ranks."""
        if not self.sums:
            return {}
        sums, counts = self._reduced()
        return {name: total / max(1.0, count) for name, total, count in zip(self.sums, sums, counts, strict=True)}

    def since(self, earlier: Means) -> dict[str, float]:
        """The means, on this rank, over what was added after `earlier` was copied."""
        return {
            name: float(total - earlier.sums.get(name, 0)) / max(1, self.counts[name] - earlier.counts.get(name, 0))
            for name, total in self.sums.items()
        }

    def copy(self) -> Means:
        """A snapshot; sums are replaced, never changed in place, so sharing them is safe."""
        twin = Means()
        twin.sums, twin.counts = dict(self.sums), dict(self.counts)
        return twin

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts over all ranks, as plain numbers."""
        if not self.sums:
            return {}
        sums, counts = self._reduced()
        return {name: [total, count] for name, total, count in zip(self.sums, sums, counts, strict=True)}

    @classmethod
    def from_state(cls, state: dict[str, Any], first_rank: bool = True) -> Means:
        """What `state_dict` gave; the first rank goes on with the sums of all, the others with nothing."""
        means = cls()
        for name, (total, count) in state.items():
            means.sums[name] = torch.tensor(total if first_rank else 0.0, dtype=torch.float32)
            means.counts[name] = int(count) if first_rank else 0
        return means
