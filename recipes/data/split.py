"""A split of the data whose samples are in memory, and the fingerprint of any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from plugins.inputs import Inputs, concatenated, each, shape_of, some
from recipes.data.fetching import fetched
from recipes.data.numbers import as_entry, to_unit_range
from recipes.data.source import Sample, Source, carried, joint, ranges


@dataclass
class Split(Source):
    """Inputs (samples, *shape), or several by name, one target tensor a task, what each sample counts and its group, in memory."""

    x: Any  # a tensor, or a dict of tensors
    targets: dict[str, Tensor]
    weight: Tensor | None = field(default=None, kw_only=True)
    groups: Tensor | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(some(self.x))

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """The targets."""
        return self.targets

    @property
    def shape(self) -> Any:
        """The shape of one sample."""
        return shape_of(self.x)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return some(self.x).device

    def fetch(self, index: Tensor) -> Sample:
        """Samples by index, on the device."""
        # several times faster than x[index] where a sample is small
        x = self.x.index_select(0, index) if isinstance(self.x, Tensor) else each(self.x, lambda x: x.index_select(0, index))
        return x, {task: target.index_select(0, index) for task, target in self.targets.items()}

    def between(self, start: int, stop: int) -> Sample:
        """Views of samples start to stop − 1."""
        return each(self.x, lambda x: x[start:stop]), {task: target[start:stop] for task, target in self.targets.items()}

    def __getitem__(self, index: Any) -> Split:
        made = Split(each(self.x, lambda x: x[index]), {task: target[index] for task, target in self.targets.items()})
        return carried(made, lambda values: values[index], self)

    def __add__(self, other: Any) -> Split:
        if not isinstance(other, Split):
            return NotImplemented
        made = Split(concatenated([self.x, other.x]), concatenated([self.targets, other.targets]))
        return carried(made, joint, self, other)

    def to(self, device: torch.device) -> Split:
        """The split on a device: the same object where it is there already."""
        if self.device == device:
            return self
        made = Split(each(self.x, lambda x: x.to(device)), {task: target.to(device) for task, target in self.targets.items()})
        return carried(made, lambda values: values.to(device), self)


def fingerprint(splits: Mapping[str, Source]) -> str:
    """A hash of all samples and targets, split by split: the same wherever they lie."""
    found = hashlib.blake2b(digest_size=16)
    for name, split in splits.items():
        found.update(f"{name} x ".encode())
        for part in split.contents():
            found.update(part)
        for task, values in split.labels.items():
            found.update(f"{name} y {task} {values.dtype} {tuple(values.shape)}".encode())
            found.update(values.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def fingerprint_of_weights(splits: Mapping[str, Source]) -> str:
    """A hash of what each sample counts; empty where all count alike."""
    found = hashlib.blake2b(digest_size=16)
    weights = {name: split.weight for name, split in splits.items() if split.weight is not None}
    for name, weight in weights.items():
        found.update(f"{name} {len(weight)}".encode())
        found.update(weight.contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest() if weights else ""


def samples_of(found: str) -> str:
    """The part of a fingerprint that tells samples and targets, without weights."""
    return found.partition("-")[0]


def nested(labels: Tensor, samples: int, seed: int) -> Tensor:
    """Some samples, of which fewer with the same seed are a part; of classes each has its share, within one sample.

    In class c of n_c samples the sample of random rank r gets the place (r + u) / n_c, u uniform in [0, 1) for the class; the first
    places are taken.

    Args:
        labels: of all samples: whole numbers (samples,) for classes; any others are taken as one class.
        samples: how many, from 1 to all.
        seed: which.

    Returns:
        Their indices in ascending order.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = labels if labels.ndim == 1 and not labels.is_floating_point() else torch.zeros(len(labels), dtype=torch.long)
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in classes.unique():
        there = (classes == label).nonzero()[:, 0]
        ranks = torch.randperm(len(there), generator=generator).double()
        place[there] = (ranks + torch.rand(1, generator=generator, dtype=torch.float64)) / len(there)
    return place.argsort(stable=True)[:samples].sort().values


def pieces(source: Source, size: int | None = None) -> Iterator[Inputs]:
    """Raw inputs piece by piece, as the model gets them: images in [0, 1].

    Args:
        source: of which.
        size: samples of a piece; None: 4096, or fewer where they are large.
    """
    for piece, _ in fetched(source, (range(*ends) for ends in ranges(source, size)), torch.device("cpu")):
        yield each(piece, as_entry) if isinstance(piece, dict) else to_unit_range(piece)


def without(samples: Source, held_out: Tensor) -> tuple[Source, Source, Tensor]:
    """The other samples, in order, those that are held out, and their places."""
    kept = torch.ones(len(samples), dtype=torch.bool)
    kept[held_out] = False
    return samples[kept.nonzero()[:, 0]], samples[held_out], held_out
