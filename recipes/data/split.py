"""A split of the data whose samples are in memory, and the fingerprint of any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recipes.data.fetching import fetched
from recipes.data.source import Sample, Source, ranges


@dataclass
class Split(Source):
    """Inputs (samples, *shape) and one target tensor a task, in memory."""

    x: Tensor
    targets: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """The targets."""
        return self.targets

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.x.device

    def fetch(self, index: Tensor) -> Sample:
        """Samples by index, on the device."""
        # several times faster than x[index] where a sample is small
        return self.x.index_select(0, index), {task: target.index_select(0, index) for task, target in self.targets.items()}

    def between(self, start: int, stop: int) -> Sample:
        """Views of samples start to stop − 1."""
        return self.x[start:stop], {task: target[start:stop] for task, target in self.targets.items()}

    def __getitem__(self, index: Any) -> Split:
        return Split(self.x[index], {task: target[index] for task, target in self.targets.items()})

    def __add__(self, other: Any) -> Split:
        if not isinstance(other, Split):
            return NotImplemented
        return Split(
            torch.cat([self.x, other.x]),
            {task: torch.cat([target, other.targets[task]]) for task, target in self.targets.items()},
        )

    def to(self, device: torch.device) -> Split:
        """The split on a device: the same object where it is there already."""
        if self.x.device == device:
            return self
        return Split(self.x.to(device), {task: target.to(device) for task, target in self.targets.items()})


def fingerprint(splits: Mapping[str, Source]) -> str:
    """A hash of all samples and targets, split by split: the same wherever they lie."""
    found = hashlib.blake2b(digest_size=16)
    for name, split in splits.items():
        found.update(f"{name} x ".encode())
        for part in split.contents():
            found.update(part)
        for task, values in split.labels.items():
            found.update(f"{name} y {task} {values.dtype} {tuple(values.shape)}".encode())
            found.update(values.contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def pieces(source: Source, size: int | None = None) -> Iterator[Tensor]:
    """Raw inputs piece by piece, as the model gets them: images in [0, 1].

    Args:
        source: of which.
        size: samples of a piece; None: 4096, or fewer where they are large.
    """
    for piece, _ in fetched(source, (range(*ends) for ends in ranges(source, size)), torch.device("cpu")):
        yield piece.float().div_(255) if piece.dtype == torch.uint8 else piece.float()
