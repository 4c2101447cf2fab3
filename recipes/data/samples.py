"""Samples of data sets of torch's, reached by index: each is looked at once, and made again whenever it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import eq
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from plugins.base import RecipeError
from plugins.inputs import Inputs, alike, concatenated, described, each, joined, shape_of, some
from recipes.config.errors import first_line, of_own_code
from recipes.data.fetching import fetched
from recipes.data.source import Chosen, Sample, Source, ranges

TWICE = 16  # samples that are asked for twice, spread over all
REPEATED = 0.02  # share of samples that are equal to others up to which these are mistakes of a data set, and not what it holds
Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Part:
    """A data set with `__getitem__` and `__len__`, and what puts its samples together."""

    dataset: Any
    collate: Collate


class Samples(Source):
    """The samples of data sets, one behind the other: pairs (input, target) of tensors, arrays, numbers, or dicts of these by name.

    All are looked at once, which gives targets, shape and a hash of each.

    Args:
        parts: the data sets.
        name: of the class, for errors.
        workers: processes that make samples ahead.

    Raises:
        RecipeError: no pairs, shapes that differ, numbers that are none, a sample that is another one each time, or an exception of its own.
    """

    def __init__(self, parts: Sequence[Part], name: str, workers: int = 0) -> None:
        self.parts, self.name, self.workers = parts, name, workers
        self._ends = list(accumulate(_length(part.dataset, name) for part in parts))
        if not len(self):
            raise RecipeError(f"{name} has no samples")
        self._labels: dict[str, Tensor] = {}
        self._shape: Any = shape_of(self.between(0, 1)[0])
        self._expect_same_again()
        self._digests: list[bytes] = []
        self._look()

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """The targets of all samples."""
        return self._labels

    @property
    def shape(self) -> Any:
        """The shape of one sample."""
        return self._shape

    def fetch(self, index: Tensor) -> Sample:
        """Samples by index, made by the data sets."""
        if not len(index):  # of their form, but none
            x, targets = self.fetch(torch.tensor([0]))
            return each(x, lambda x: x[:0]), {task: target[:0] for task, target in targets.items()}
        rows, order, found = index.tolist(), [], []
        for part, first, end in zip(self.parts, [0, *self._ends], self._ends, strict=False):
            places = [place for place, row in enumerate(rows) if first <= row < end]
            if places:
                found.append(self._made(part, first, [rows[place] for place in places]))
                order += places
        if len(found) == 1:
            return found[0]
        back = torch.tensor(order).argsort()
        x, targets = (concatenated(parts) for parts in zip(*found, strict=True))
        return each(x, lambda x: x[back]), {task: target[back] for task, target in targets.items()}

    def _made(self, part: Part, first: int, rows: Sequence[int]) -> Sample:
        """Samples of one data set, whose own ones begin at `first`."""
        samples = [self._one(part, first, row) for row in rows]
        where = f"{self.name}: sample {rows[0]}"
        try:
            batch = part.collate(samples)
        except Exception as error:
            raise RecipeError(
                f"{where} and those beside it cannot be put together, {first_line(error)}: give tensors, arrays or numbers of one shape"
            ) from None
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise RecipeError(f"{where}: expected a pair (input, target), got {_in_words(samples[0])}")
        x, targets = batch
        given = targets if isinstance(targets, dict) else {"": targets}
        return as_inputs(x, where), {
            str(task): as_target(target, f"{where}, target {task or 'y'}") for task, target in given.items()
        }

    def _one(self, part: Part, first: int, row: int) -> Any:
        """A sample as its data set gives it."""
        try:
            sample = part.dataset[row - first]
        except RecipeError:
            raise
        except Exception as error:
            raise RecipeError(f"{self.name}: sample {row} cannot be made: {of_own_code(error)}") from None
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise RecipeError(f"{self.name}: sample {row}: expected a pair (input, target), got {_in_words(sample)}")
        return sample

    def _expect_same_again(self) -> None:
        """Refuse samples that are other ones each time, or have other targets."""
        index = torch.linspace(0, len(self) - 1, min(TWICE, len(self))).long()
        once, again = self.fetch(index), self.fetch(index)
        if once[1] and _digests(once[1]) != _digests(again[1]):
            raise RecipeError(
                f"{self.name} gives another target each time that it is asked for the same sample, so no run could be repeated or resumed: "
                f"draw the targets once, in __init__"
            )
        if _digests(once[0]) != _digests(again[0]):
            raise RecipeError(
                f"{self.name} gives another sample each time that it is asked for the same, as a random transform does, so no run could be "
                f"repeated or resumed: leave that out, and add +augmentation=, such as +augmentation=[crop,horizontal_flip]"
            )

    def _look(self) -> None:
        """See all samples once."""
        labels: dict[str, list[Tensor]] = {}
        for (start, stop), (x, targets) in zip(
            ranges(self), fetched(self, (range(*ends) for ends in ranges(self)), torch.device("cpu")), strict=True
        ):
            shape = shape_of(x)
            if not alike(shape, self._shape):
                raise RecipeError(
                    f"{self.name}: samples differ in shape, {described(self._shape)} and {described(shape)}: give all the same"
                )
            self._shape = joined(self._shape, [shape]) if isinstance(shape, dict) else shape
            for values in [x] if isinstance(x, Tensor) else x.values():
                if values.is_floating_point() and not bool(values.isfinite().all()):
                    raise RecipeError(
                        f"{self.name}: among samples {start} to {stop - 1} are numbers that are NaN or infinite: clean the data first"
                    )
            self._digests += _digests(x)
            if labels and {*labels} != {*targets}:
                raise RecipeError(
                    f"{self.name}: targets differ, {', '.join(labels)} and {', '.join(targets)}: give all samples the same"
                )
            for task, target in targets.items():
                labels.setdefault(task, []).append(target)
        self._labels = {task: torch.cat(given) for task, given in labels.items()}

    def contents(self) -> Iterator[Any]:
        """What tells the inputs from others: a hash of each."""
        yield from self.digests_of(torch.arange(len(self)))

    def digests_of(self, index: Tensor) -> Iterator[Any]:
        """The hashes of some of the samples."""
        yield f"{len(index)} samples {described(self._shape)}".encode()
        yield from (self._digests[row] for row in index.tolist())

    def __getitem__(self, index: Any) -> Source:
        return ChosenSamples(self, torch.arange(len(self))[index])


def shared(samples: Samples, others: Samples) -> int:
    """How many of the others are among the samples, target and all; 0 where samples of either repeat themselves, so that it is no wonder."""
    if any(len(of) - len({*of._digests}) > REPEATED * len(of) for of in (samples, others)):
        return 0
    places = {digest: row for row, digest in enumerate(samples._digests)}
    pairs = [(places[digest], row) for row, digest in enumerate(others._digests) if digest in places]
    if not pairs:
        return 0
    here, there = torch.tensor(pairs).T
    one, other = (
        _digests({task: target[rows] for task, target in of.labels.items()}) for of, rows in ((samples, here), (others, there))
    )
    return sum(map(eq, one, other))


class ChosenSamples(Chosen):
    """Some of them, known by the hashes that they have."""

    source: Samples

    def contents(self) -> Iterator[Any]:
        """What tells the inputs from others."""
        yield from self.source.digests_of(self.index)


def as_inputs(x: Any, where: str) -> Inputs:
    """Inputs as a model gets them: 32-bit floats, images of bytes as such, whole numbers by name as they are."""
    if isinstance(x, dict) and x:
        return {str(name): _as_input(value, f"{where}, input {name}", by_name=True) for name, value in x.items()}
    return _as_input(x, where, by_name=False)


def _as_input(x: Any, where: str, by_name: bool) -> Tensor:
    if not isinstance(x, Tensor) or x.is_complex():
        got = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise RecipeError(
            f"{where}: expected an input that is a tensor or an array of numbers, or a dict of such by name, got {got}"
        )
    if x.is_floating_point():
        return x.float()
    if x.dtype == torch.uint8 and x.ndim == 4:  # images, which the model gets in [0, 1]
        return x
    if by_name:
        return x if x.dtype == torch.bool else x.long()
    return x.float()


def as_target(target: Any, where: str) -> Tensor:
    """A target: floats of 32 bits, whole numbers of 64, truth values."""
    if not isinstance(target, Tensor):
        raise RecipeError(f"{where}: expected numbers, got {_in_words(target)}: give a class as a whole number from 0 on")
    if target.is_floating_point():
        return target.float()
    return target if target.dtype == torch.bool or target.is_complex() else target.long()


def _digests(x: Inputs) -> list[bytes]:
    """A hash of each sample, whatever the others are."""
    tensors = [x] if isinstance(x, Tensor) else list(x.values())
    rows = [
        tensor.contiguous().flatten(1).view(torch.uint8).numpy()
        if tensor.ndim > 1
        else tensor.unsqueeze(1).view(torch.uint8).numpy()
        for tensor in tensors
    ]
    found = []
    for number in range(len(some(x))):
        digest = hashlib.blake2b(digest_size=16)
        for row in rows:
            digest.update(row[number].tobytes())
        found.append(digest.digest())
    return found


def refuse_stream(dataset: Any, said: str) -> None:
    """Refuse a data set without samples by number."""
    if isinstance(dataset, IterableDataset):
        raise RecipeError(
            f"{said} an IterableDataset, whose samples cannot be reached by their number: the order of samples is drawn by it, "
            f"so that runs can be compared and resumed; make it a Dataset with __getitem__ and __len__"
        )


def _length(dataset: Any, name: str) -> int:
    refuse_stream(dataset, f"{name} is")
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        raise RecipeError(f"{name} has no __len__: a data set must tell how many samples it has") from None


def _in_words(sample: Any) -> str:
    if isinstance(sample, dict):
        return f"a dict with {', '.join(map(str, sample))}"
    if isinstance(sample, tuple | list):
        return f"a {type(sample).__name__} of {len(sample)}: {', '.join(type(each).__name__ for each in sample[:3])}"
    return f"a {type(sample).__name__} alone" if isinstance(sample, Tensor) else f"a {type(sample).__name__}"
