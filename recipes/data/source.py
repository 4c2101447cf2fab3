"""Samples by index, wherever they lie: what a split is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from plugins.inputs import numbers_in, shape_of

Sample = tuple[Any, dict[str, Tensor]]  # inputs, one tensor or a dict of several, and targets by task
BESIDE = ("weight", "groups")  # what a source tells of each sample beside its inputs and targets


PIECE = 4096  # samples that are looked at together,
LARGEST_PIECE = 16 * 2**20  # and the bytes of them as floats, which bound it where a sample is large


class Marked(NamedTuple):
    """A training batch of which more is told: how much its samples count, which they are, or what makes up for how they were drawn."""

    x: Any
    targets: dict[str, Tensor]
    weight: Tensor | None = None  # (samples,)
    samples: Tensor | None = None  # (samples,), by their numbers in the training split
    epoch: int = 0
    correction: Tensor | None = None  # factor of each sample's loss, (samples,)


class Source(ABC):
    """Samples that are reached by index.

    A subclass defines `__len__`, `labels` and `fetch`, and a data set of one's own returns it from `load()`. All else, the split into
    training, validation and test, statistics, fingerprints, goes through `fetch` a piece at a time, so no more than that must fit into the
    memory. Splits in memory are :class:`recipes.data.split.Split`.

    Attributes:
        workers: processes that fetch ahead while the model trains; 0: the one that trains does.
        remark: where the samples lie, for the first lines of a run; empty where they lie in memory.
        weight: how much each sample counts in what is minimized, ≥ 0, (samples,), in memory; None: all alike.
        groups: a number for each sample, (samples,), of which none is in two splits; None: samples are drawn by themselves.
    """

    workers: int = 0
    remark: str = ""
    weight: Tensor | None = None
    groups: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @property
    @abstractmethod
    def labels(self) -> Mapping[str, Tensor]:
        """The targets of all samples, in memory, one tensor a task."""

    @abstractmethod
    def fetch(self, index: Tensor) -> Sample:
        """Samples, as copies: inputs (samples, *shape), or a dict of such by name, and one target tensor a task.

        Args:
            index: whole numbers (samples,), in any order, any of them several times. The same index gives the same samples.
        """

    def between(self, start: int, stop: int) -> Sample:
        """Samples start to stop − 1; they may be views."""
        return self.fetch(torch.arange(start, stop))

    @property
    def device(self) -> torch.device:
        """Where `fetch` finds its samples, and takes its index."""
        return torch.device("cpu")

    def to(self, device: torch.device) -> Source:
        """The source on a device, where it can be there."""
        return self

    @property
    def shape(self) -> Any:
        """The shape of one sample."""
        return shape_of(self.between(0, 1)[0])

    def contents(self) -> Iterator[Any]:
        """What tells the inputs from others, as buffers of bytes: type and shape, then all numbers."""
        for number, (start, stop) in enumerate(ranges(self)):
            x = self.between(start, stop)[0]
            for name, values in ({"": x} if isinstance(x, Tensor) else x).items():
                if not number:
                    yield f"{f'{name} ' if name else ''}{values.dtype} {(len(self), *values.shape[1:])}".encode()
                yield values.contiguous().flatten().view(torch.uint8).numpy().data

    def __getitem__(self, index: Any) -> Source:
        """Some of the samples: a slice, or a tensor of whole numbers."""
        return Chosen(self, torch.arange(len(self))[index])

    def __add__(self, other: Any) -> Source:
        """The samples of two parts of one source."""
        return NotImplemented


AnySource = TypeVar("AnySource", bound=Source)


def carried(made: AnySource, change: Callable[..., Tensor], *sources: Source) -> AnySource:
    """A source that was made of others, with the weights and groups of their samples.

    Args:
        made: it gets them; none where one of the others has none.
        change: what becomes of them, as of the samples.
        sources: the others.
    """
    for name in BESIDE:
        given = [getattr(source, name) for source in sources]
        setattr(made, name, None if any(values is None for values in given) else change(*given))
    return made


def joint(*parts: Tensor) -> Tensor:
    """Values of samples one behind the other."""
    return torch.cat(parts)


class Chosen(Source):
    """Some samples of a source, in an order of their own.

    Args:
        source: of which.
        index: which, (samples,).
    """

    def __init__(self, source: Source, index: Tensor) -> None:
        self.source, self.index = source, index
        self.workers, self.remark = source.workers, source.remark
        self._labels = {task: target[index] for task, target in source.labels.items()}
        self._shape = source.shape
        carried(self, lambda values: values[index], source)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """The targets."""
        return self._labels

    @property
    def shape(self) -> Any:
        """The shape of one sample."""
        return self._shape

    def fetch(self, index: Tensor) -> Sample:
        """The source's samples."""
        return self.source.fetch(self.index[index])

    def __getitem__(self, index: Any) -> Source:
        return type(self)(self.source, self.index[index])

    def __add__(self, other: Any) -> Source:
        if not isinstance(other, type(self)) or other.source is not self.source:
            return NotImplemented
        return type(self)(self.source, torch.cat([self.index, other.index]))


def ranges(source: Source, batches: int | None = None) -> list[tuple[int, int]]:
    """Where the pieces of a source begin and end that are looked at one after the other."""
    bytes_of_one = 4 * numbers_in(source.shape)
    size = batches or max(1, min(PIECE, LARGEST_PIECE // max(1, bytes_of_one)))
    return [(start, min(start + size, len(source))) for start in range(0, len(source), size)]
