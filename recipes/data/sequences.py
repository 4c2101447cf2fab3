"""Samples that are sequences of different lengths: those that are shorter are filled up, and a mask tells where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from plugins.inputs import Entry, concatenated
from recipes.data.source import Sample, Source, carried, joint

FEATURES, MASK = "features", "mask"


@dataclass(eq=False)
class Sequences(Source):
    """Sequences in memory, one behind the other; each comes as `features`, floats (longest, numbers), and `mask`, true where there are some.

    Args:
        frames: of all sequences, (frames, numbers).
        starts: where each begins among them, (samples,).
        lengths: frames of each, (samples,).
        targets: one tensor a task.
        longest: frames that each is filled up to, with zeros.
        groups: of the samples, of which none is in two splits; None: each stands for itself.
        remark: for the first lines of a run.
    """

    frames: Tensor
    starts: Tensor
    lengths: Tensor
    targets: dict[str, Tensor]
    longest: int
    groups: Tensor | None = None
    remark: str = ""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """The targets."""
        return self.targets

    @property
    def shape(self) -> dict[str, Entry]:
        """The shape of one sample."""
        return {FEATURES: Entry((self.longest, self.frames.shape[1]), "float32"), MASK: Entry((self.longest,), "bool")}

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.frames.device

    def fetch(self, index: Tensor) -> Sample:
        """Samples by index, filled up."""
        steps, lengths = torch.arange(self.longest, device=self.device), self.lengths[index].unsqueeze(1)
        mask = steps < lengths
        places = self.starts[index].unsqueeze(1) + steps.minimum(lengths - 1)
        found = self.frames[places].masked_fill_(~mask.unsqueeze(2), 0)
        return {FEATURES: found, MASK: mask}, {task: target.index_select(0, index) for task, target in self.targets.items()}

    def between(self, start: int, stop: int) -> Sample:
        """Samples start to stop − 1."""
        return self.fetch(torch.arange(start, stop, device=self.device))

    def contents(self) -> Iterator[Any]:
        """What tells the sequences from others, however far they are filled up."""
        yield f"{self.frames.dtype} {(len(self), *self.frames.shape[1:])}".encode()
        yield self.lengths.contiguous().view(torch.uint8).numpy().data
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            yield self.frames[start : start + length].flatten().view(torch.uint8).numpy().data

    def __getitem__(self, index: Any) -> Sequences:
        targets = {task: target[index] for task, target in self.targets.items()}
        made = replace(self, starts=self.starts[index], lengths=self.lengths[index], targets=targets)
        return carried(made, lambda values: values[index], self)

    def __add__(self, other: Any) -> Sequences:
        if not isinstance(other, Sequences) or other.frames is not self.frames:
            return NotImplemented
        targets = concatenated([self.targets, other.targets])
        starts, lengths = torch.cat([self.starts, other.starts]), torch.cat([self.lengths, other.lengths])
        return carried(replace(self, starts=starts, lengths=lengths, targets=targets), joint, self, other)

    def to(self, device: torch.device) -> Sequences:
        """The sequences on a device: the same object where they are there already."""
        if self.device == device:
            return self
        targets = {task: target.to(device) for task, target in self.targets.items()}
        frames, starts, lengths = (each.to(device) for each in (self.frames, self.starts, self.lengths))
        made = replace(self, frames=frames, starts=starts, lengths=lengths, targets=targets)
        return carried(made, lambda values: values.to(device), self)


def sequences(found: Sequence[Tensor], targets: dict[str, Tensor], groups: Tensor | None = None, remark: str = "") -> Sequences:
    """Sequences (frames, numbers) as samples.

    Args:
        found: at least one, each of at least one frame.
        targets: of them, one tensor a task.
        groups: of the samples; None: there are none.
        remark: for the first lines of a run.
    """
    lengths = torch.tensor([len(each) for each in found])
    starts = lengths.cumsum(0) - lengths
    return Sequences(torch.cat(list(found)), starts, lengths, targets, int(lengths.max()), groups, remark)
