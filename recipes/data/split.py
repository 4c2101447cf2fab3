"""A split of the data: its samples in memory, and their fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Sample = tuple[Tensor, dict[str, Tensor]]


@dataclass
class Split:
    """Inputs (samples, *shape) and one target tensor a task."""

    x: Tensor
    targets: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Split:
        return Split(self.x[index], {task: target[index] for task, target in self.targets.items()})

    def __add__(self, other: Split) -> Split:
        return Split(
            torch.cat([self.x, other.x]),
            {task: torch.cat([target, other.targets[task]]) for task, target in self.targets.items()},
        )

    def to(self, device: torch.device) -> Split:
        """The split on a device: the same object where it is there already."""
        if self.x.device == device:
            return self
        return Split(self.x.to(device), {task: target.to(device) for task, target in self.targets.items()})


def fingerprint(splits: Mapping[str, Split]) -> str:
    """A hash of all samples and targets, split by split."""
    found = hashlib.blake2b(digest_size=16)
    for name, split in splits.items():
        for part, values in {"x": split.x, **{f"y {task}": target for task, target in split.targets.items()}}.items():
            found.update(f"{name} {part} {values.dtype} {tuple(values.shape)}".encode())
            found.update(values.contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def pieces(x: Tensor, size: int = 4096) -> Iterator[Tensor]:
    """Raw inputs piece by piece, as the model gets them: images in [0, 1]."""
    for piece in x.split(size):
        yield piece.float().div_(255) if piece.dtype == torch.uint8 else piece.float()
