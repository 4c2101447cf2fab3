"""An array that lies uncompressed in a file, of which rows are read when they are needed.

Rows are read at their place, not mapped: a map counts against the limits of a process, and where its file is cut short it ends the
process without a word. The system keeps what was read for as long as there is room, as it does with a map.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from plugins.base import RecipeError
from recipes.data.arrays import check_values, to_inputs
from recipes.data.source import LARGEST_PIECE, Sample, Source

_pread = getattr(os, "pread", None)  # not on Windows


class StoredArray:
    """Where an array lies in a file.

    Args:
        path: the file.
        member: of an npz file; None where the file is the array, as `numpy.save` writes it.

    Raises:
        ValueError: it is compressed, no array of numbers, or not stored sample by sample; a damaged file raises what NumPy and zipfile do.
    """

    def __init__(self, path: Path, member: str | None = None) -> None:
        self.path, self.member = path, member
        with self.opened() as file:
            self.shape, by_columns, self.dtype = head(file)
            self.start = file.tell()
        if by_columns and len(self.shape) > 1:
            raise ValueError("it is stored column by column: write numpy.ascontiguousarray of it")
        if self.dtype.hasobject:
            raise ValueError("it holds objects, expected numbers")
        self.offset, room = self.start, path.stat().st_size
        if member is not None:
            with zipfile.ZipFile(path) as archive:
                entry = archive.getinfo(member)
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise ValueError("it is compressed: write the file with numpy.savez")
            with open(path, "rb") as file:
                file.seek(entry.header_offset + 26)
                lengths = file.read(4)  # of the name and of what stands behind it, before the content
            self.offset += entry.header_offset + 30 + sum(int.from_bytes(lengths[at : at + 2], "little") for at in (0, 2))
            room = min(room, self.offset - self.start + entry.file_size)
        if self.offset + self.nbytes > room:
            raise ValueError("the file ends before it")
        self._file: tuple[int, IO[bytes]] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Numbers."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.size * self.dtype.itemsize

    @property
    def bytes_of_one(self) -> int:
        """Bytes of a sample."""
        return self.nbytes // max(1, len(self))

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """The array's file, from its head to its end; where that is reached, zipfile has compared the checksum."""
        if self.member is None:
            with open(self.path, "rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield member

    def pieces(self) -> Iterator[np.ndarray]:
        """All rows in order, of which no more than a piece is in memory."""
        step = max(1, LARGEST_PIECE // 2 // max(1, self.bytes_of_one))
        with self.opened() as file:
            file.read(self.start)  # to seek would give the checksum up
            for first in range(0, len(self), step):
                shape = (min(step, len(self) - first), *self.shape[1:])
                content = file.read(math.prod(shape) * self.dtype.itemsize)
                yield np.frombuffer(bytearray(content), self.dtype).reshape(shape)
            file.read(1)

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Rows by number, in any order, any of them several times."""
        if not len(index):
            return np.empty((0, *self.shape[1:]), self.dtype)
        one = self.bytes_of_one
        rises = bool((index[1:] > index[:-1]).all())
        if not rises and 8 * len(index) < len(self):  # few are neighbours: each row is read where it belongs
            return self._read([one] * len(index), (self.offset + index * one).tolist(), index.shape)
        order = None if rises else np.argsort(index, kind="stable")
        wanted = index if order is None else index[order]
        firsts = np.flatnonzero(np.diff(wanted, prepend=wanted[0] - 2) != 1)  # neighbours are read at once
        lengths = np.diff(firsts, append=len(index)) * one
        found = self._read(lengths.tolist(), (self.offset + wanted[firsts] * one).tolist(), index.shape)
        if order is None:
            return found
        sorted_back = np.empty_like(found)
        sorted_back[order] = found
        return sorted_back

    def _read(self, lengths: Sequence[int], places: Sequence[int], rows: tuple[int, ...]) -> np.ndarray:
        """Parts of the file, one behind the other: a call of the system for each, with as little around it as can be."""
        if self._file is None or self._file[0] != os.getpid():  # processes that share an open file share its position
            self._file = os.getpid(), open(self.path, "rb", buffering=0)  # noqa: SIM115
        file, whole = self._file[1], rows[0] * self.bytes_of_one
        content = bytearray()
        if _pread is not None:
            content = bytearray().join(map(_pread, repeat(file.fileno()), lengths, places))
        if len(content) != whole:
            content = bytearray().join(map(self._whole, repeat(file), lengths, places))
        return np.frombuffer(content, self.dtype).reshape(*rows, *self.shape[1:])

    def _whole(self, file: IO[bytes], length: int, at: int) -> bytearray:
        """A part of the file where the system gives it in smaller ones."""
        file.seek(at)
        content = bytearray()
        while len(content) < length:
            part = file.read(length - len(content))
            if not part:
                raise RecipeError(f"{self.path} has become shorter since it was opened: write it again, and resume")
            content += part
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": None}


class Stored(Source):
    """Samples whose inputs stay in a file, with their targets in memory.

    Args:
        array: the inputs: images or features.
        targets: of all samples, one tensor a task.
        where: the array's place, for errors.
        remark: for the first lines of a run.
        workers: processes that read ahead.
        weight: how much each sample counts; None: all alike.

    Raises:
        RecipeError: values that are NaN or infinite, images out of [0, 1].
    """

    def __init__(
        self,
        array: StoredArray,
        targets: dict[str, Tensor],
        where: str,
        remark: str = "",
        workers: int = 0,
        weight: Tensor | None = None,
    ) -> None:
        self.array, self.targets, self.where, self.weight = array, targets, where, weight
        self.remark, self.workers = remark, workers
        check_values(((piece, self._inputs(piece)) for piece in array.pieces()), where)

    def __len__(self) -> int:
        return len(self.array)

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """The targets."""
        return self.targets

    def _inputs(self, rows: np.ndarray) -> Tensor:
        return to_inputs(rows, self.where, images=rows.ndim != 2)

    def fetch(self, index: Tensor) -> Sample:
        """Samples by index, read from the file."""
        targets = {task: target.index_select(0, index) for task, target in self.targets.items()}
        return self._inputs(self.array.rows(index.numpy())), targets


def head(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored by columns, and type, from the head that `numpy.save` writes; reads up to the first number."""
    major = np.lib.format.read_magic(file)[0]
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    return read(file)
