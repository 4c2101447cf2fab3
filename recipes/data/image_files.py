"""Images in files as samples: decoded when they are needed, or once, when a run starts, and held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plugins.base import RecipeError
from plugins.inputs import concatenated
from recipes.data.fetching import fetched
from recipes.data.images import ENDINGS, Form, Looked, Unreadable, decode, look_at_one
from recipes.data.source import Sample, Source, carried, joint, ranges
from recipes.data.split import Split

READERS = 8  # threads that look at the files once; they wait for the disk
NAMED = 3  # broken files that a message names


class File(NamedTuple):
    """Where an image lies.

    Args:
        path: of the file.
        name: by which a prediction calls it.
        told: what else is to be said of its place in an error, such as the line of the table that names it.
    """

    path: Path
    name: str
    told: str = ""

    @property
    def where(self) -> str:
        """Its place in words."""
        return f"{self.path}{self.told}"


@dataclass(eq=False)
class ImageFiles(Source):
    """Images in files, (channels, height, width) bytes, decoded when they are fetched.

    Args:
        files: of the images.
        targets: of all images, one tensor a task.
        form: of an image.
        digests: a hash of each image.
        workers: processes that read ahead.
        remark: for the first lines of a run.
    """

    files: Sequence[File]
    targets: dict[str, Tensor]
    form: Form
    digests: Sequence[bytes]
    workers: int = 0
    remark: str = ""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """The targets."""
        return self.targets

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image."""
        return self.form.shape

    def fetch(self, index: Tensor) -> Sample:
        """Decoded images."""
        images = torch.empty((len(index), *self.shape), dtype=torch.uint8)
        for image, number in zip(images, index.tolist(), strict=True):
            image.copy_(decode(self.files[number].path, self.form, self.files[number].where))
        return images, {task: target.index_select(0, index) for task, target in self.targets.items()}

    def contents(self) -> Iterator[Any]:
        """What the files hold, and what is made of it."""
        return contents(self.form, self.digests)

    def __getitem__(self, index: Any) -> ImageFiles:
        numbers = torch.arange(len(self))[index]
        targets = {task: target[numbers] for task, target in self.targets.items()}
        made = replace(self, files=chosen(self.files, numbers), targets=targets, digests=chosen(self.digests, numbers))
        return carried(made, lambda values: values[numbers], self)

    def __add__(self, other: Any) -> ImageFiles:
        if not isinstance(other, ImageFiles):
            return NotImplemented
        targets = concatenated([self.targets, other.targets])
        made = replace(self, files=[*self.files, *other.files], targets=targets, digests=[*self.digests, *other.digests])
        return carried(made, joint, self, other)


@dataclass
class Held(Split):
    """Images that were decoded, in memory; they are known by their files."""

    form: Form
    digests: Sequence[bytes]
    remark: str

    def contents(self) -> Iterator[Any]:
        """What the files hold, and what is made of it."""
        return contents(self.form, self.digests)

    def __getitem__(self, index: Any) -> Held:
        split, numbers = super().__getitem__(index), torch.arange(len(self), device=self.device)[index]
        return self._with(split, chosen(self.digests, numbers))

    def __add__(self, other: Any) -> Split:
        split = super().__add__(other)
        return self._with(split, [*self.digests, *other.digests])

    def to(self, device: torch.device) -> Split:
        """The images on a device."""
        there = super().to(device)
        return there if there is self else self._with(there, self.digests)

    def _with(self, split: Split, digests: Sequence[bytes]) -> Held:
        return replace(self, x=split.x, targets=split.targets, weight=split.weight, groups=split.groups, digests=digests)


def contents(form: Form, digests: Sequence[bytes]) -> Iterator[Any]:
    """What tells images from others: their form, and their files."""
    yield f"{len(digests)} images {form}".encode()
    yield from digests


def chosen(values: Sequence[Any], numbers: Tensor) -> list[Any]:
    """Some values of a list."""
    return [values[number] for number in numbers.tolist()]


@dataclass(eq=False)
class Tried(Source):
    """Files that are decoded whether or not they can be: a target says of each whether it could."""

    files: Sequence[File]
    form: Form
    workers: int = 0

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image."""
        return self.form.shape

    def fetch(self, index: Tensor) -> Sample:
        """Decoded images; of those that are broken nothing."""
        images, right = torch.zeros((len(index), *self.shape), dtype=torch.uint8), torch.ones(len(index), dtype=torch.bool)
        for place, number in enumerate(index.tolist()):
            try:
                images[place] = decode(self.files[number].path, self.form, self.files[number].where)
            except Unreadable:
                right[place] = False
        return images, {"": right}


def look_at(files: Sequence[File]) -> list[Looked | Unreadable]:
    """Read each file once: what its head says, or why it is no image."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_look, files))


def _look(file: File) -> Looked | Unreadable:
    try:
        return look_at_one(file.path, file.where)
    except Unreadable as error:
        if not file.path.suffix and (there := [end for end in ENDINGS if file.path.with_suffix(end).is_file()]):
            return Unreadable(error.where, f"{error.reason}; there is {file.path.with_suffix(there[0]).name}")
        return error


def read(files: Sequence[File], form: Form, workers: int, keep: bool) -> tuple[Tensor | None, dict[int, Unreadable]]:
    """Decode each file once.

    Args:
        files: of images.
        form: that they get.
        workers: processes that do it.
        keep: whether the images are returned.

    Returns:
        The images (samples, channels, height, width), and the errors of those that are broken, by their number.
    """
    source = Tried(files, form, workers)
    images = torch.empty((len(files), *form.shape), dtype=torch.uint8) if keep else None
    broken, places = {}, ranges(source)
    for (start, stop), (found, flags) in zip(
        places, fetched(source, (range(*ends) for ends in places), torch.device("cpu")), strict=True
    ):
        if images is not None:
            images[start:stop] = found
        for number in (~flags[""]).nonzero()[:, 0].tolist():
            broken[start + number] = _error(files[start + number], form)
    return images, broken


def _error(file: File, form: Form) -> Unreadable:
    try:
        decode(file.path, form, file.where)
    except Unreadable as error:
        return error
    return Unreadable(file.where, "it has changed while it was read")


def refuse(broken: Sequence[Unreadable]) -> None:
    """Refuse broken files, all in one line."""
    if not broken:
        return
    if len(broken) == 1:
        raise RecipeError(f"{broken[0]}; data.broken=skip leaves it out")
    raise RecipeError(
        f"{len(broken)} files cannot be read as images: {in_words(broken, NAMED)}: write them again, take them away, or type "
        f"data.broken=skip to leave them out"
    )


def in_words(broken: Sequence[Unreadable], most: int) -> str:
    """Broken files and what is wrong with them, up to so many."""
    more = f" and {len(broken) - most} more" if len(broken) > most else ""
    return ", ".join(f"{error.where} ({error.reason})" for error in broken[:most]) + more
