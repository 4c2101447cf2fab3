"""A user's own arrays, from an npz file or npy files."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from plugins.base import RecipeError, expect, expect_choice, expect_count
from recipes.data.arrays import (
    as_inputs,
    as_labels,
    as_named_input,
    as_several_labels,
    as_text,
    as_weights,
    check_inputs,
    same_length,
)
from recipes.data.base import Data
from recipes.data.memory import available, stays
from recipes.data.source import Source
from recipes.data.split import Split
from recipes.data.stored import Stored, StoredArray, head
from recipes.data.targets import MULTILABEL
from recipes.launch.ranks import world

BROKEN: tuple[type[Exception], ...] = (  # what a damaged file makes NumPy, zipfile and zlib raise
    *(ValueError, OSError, EOFError, KeyError, TypeError, MemoryError, NotImplementedError, OverflowError, RuntimeError),
    *(SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


class NpzData(Data):
    """Inputs and one or several targets from an npz file, or from a folder with a file NAME.npy for each array.

    The arrays are named `input` and `target`; where the file has them with the endings _train and _test, these are the
    splits. Inputs with three or four dimensions are images (bytes, or numbers in [0, 1]), with two dimensions features.
    Whole-number or text targets are classes, floats a regression. Inputs that do not fit into the memory stay in the file, whose
    samples are read as they are needed: it must not be compressed for that. A model becomes the same, bit for bit.

    A list of names as `input` makes of them a mapping, such as tokens and a mask, which the model gets as a dict: floats, whole numbers
    and truth values of any shape stay what they are, and are in memory. Whole numbers (samples, *places) as targets are class maps or
    sequences of labels, truth values (samples, labels) say which of several labels a sample has.

    Args:
        path: the file or the folder.
        input: name of the array of inputs, or a list of names: a mapping of several.
        target: name of the array of targets, or a list of names: one task each.
        task: "multilabel": numbers 0 and 1 (samples, labels) say which of several labels a sample has; None: as their type says.
        in_memory: whether the inputs are loaded whole; None: where three times their size is free.
        workers: processes that read ahead where they are not, ≥ 0.
        weights: name of an array (samples,) of what each sample counts in the loss that is minimized, ≥ 0; metrics count all alike; None: all
            alike.

    Raises:
        RecipeError: arrays that are missing, damaged or of another kind, that cannot stay in the file, or from which a step takes all samples.
    """

    def __init__(
        self,
        path: str | None = None,
        input: str | Sequence[str] = "x",
        target: str | Sequence[str] = "y",
        task: str | None = None,
        in_memory: bool | None = None,
        workers: int = 0,
        weights: str | None = None,
        **split: Any,
    ) -> None:
        super().__init__(**split)
        expect(path is not None, "data.path", "the path of an npz file (data=npz data.path=FILE)", path)
        self.path, self.inputs, self.is_named = (
            Path(str(path)),
            [input] if isinstance(input, str) else list(input),
            not isinstance(input, str),
        )
        expect(bool(self.inputs), "data.input", "the name of at least one array", input)
        expect(len({*self.inputs}) == len(self.inputs), "data.input", "names of which each is given once", input)
        self.names = [target] if isinstance(target, str) else list(target)
        expect(bool(self.names), "data.target", "the name of at least one array", target)
        expect(len({*self.names}) == len(self.names), "data.target", "names of which each is given once", target)
        expect(in_memory is None or isinstance(in_memory, bool), "data.in_memory", "true, false or null", in_memory)
        expect_count("data.workers", workers, least=0)
        if task is not None:
            expect_choice("data.task", task, (MULTILABEL,))
        self.in_memory, self.workers, self.task = in_memory, workers, task
        if weights is not None and str(weights) in (*self.inputs, *self.names):
            raise RecipeError(f"data.weights must name another array than data.input and data.target, got {weights}")
        self.weights = None if weights is None else str(weights)

    def load(self) -> tuple[Source, Source | None]:
        """The file's arrays."""
        if not self.path.is_file() and not self.path.is_dir():  # a pipe would be waited for
            raise RecipeError(
                f"no file {self.path.absolute()}: data.path must be an npz file with arrays of inputs and targets"
            )
        there = array_names(self.path)
        wanted = [*self.inputs, *self.names]
        if all(f"{name}_train" in there for name in wanted):
            parts = ["_train", "_test"] if all(f"{name}_test" in there for name in wanted) else ["_train"]
        else:
            parts = [""]
        if self.weights is not None:  # only what is trained on needs some
            wanted.append(self.weights)
        names = [name + part for part in parts for name in wanted if name != self.weights or part != "_test"]
        expect_names(self.path, names)
        inputs: dict[str, Any] = self._in_place([name + part for part in parts for name in self.inputs])
        arrays = {
            **read_arrays(self.path, [name for name in names if name not in inputs]),
            **inputs,
        }
        splits = [self._split(arrays, parts, part) for part in parts]
        return splits[0], splits[1] if len(splits) > 1 else None

    def load_inputs(self) -> Source:
        """The arrays of inputs alone; of a file with a test split its test split."""
        if not self.path.is_file() and not self.path.is_dir():
            raise RecipeError(f"no file {self.path.absolute()}: data.path must be an npz file with arrays of inputs")
        there = array_names(self.path)
        self.inputs_of_test = all(f"{name}_test" in there for name in self.inputs)
        part = "_test" if self.inputs_of_test else ""
        names = [name + part for name in self.inputs]
        expect_names(self.path, names)
        stored = self._in_place(names)
        arrays: dict[str, Any] = {**read_arrays(self.path, [name for name in names if name not in stored]), **stored}
        if not self.is_named:
            check_inputs(arrays[names[0]], f"{self.path}: {names[0]}")
        same_length([(name, arrays[name]) for name in names], str(self.path))
        return self._inputs(arrays, part, {})

    def setup_test(self, seen: str | None, content: str | None, shown: Sequence[str] = ()) -> str:
        """As of any data; another file may do without weights, which a test does not ask for."""
        if (
            self.weights is not None
            and self.path.exists()
            and not {self.weights, f"{self.weights}_train"} & {*array_names(self.path)}
        ):
            self.weights = None
        return super().setup_test(seen, content, shown)

    def _in_place(self, names: Sequence[str]) -> dict[str, StoredArray]:
        """The inputs, where they stay in the file; nothing where they are loaded."""
        if self.in_memory:
            return {}
        if self.is_named:
            expect(
                self.in_memory is None, "data.in_memory", "true or null where data.input is a list of arrays", self.in_memory
            )
            return {}
        try:
            found = {name: stored_array(self.path, name) for name in names}
        except BROKEN as error:
            if self.in_memory is None:  # who loads it tells what is wrong with it
                return {}
            raise RecipeError(f"data.in_memory=false: {self.path}: {', '.join(names)} must be read whole: {error}") from None
        as_floats = 1 if all(array.dtype == np.uint8 and array.ndim > 2 for array in found.values()) else 4
        size = sum(max(array.nbytes, array.size * as_floats) for array in found.values())
        return found if stays(self.in_memory, size, self.batch_size, self.path, world()) else {}

    def _split(self, arrays: dict[str, Any], parts: Sequence[str], part: str) -> Source:
        if not self.is_named:
            check_inputs(arrays[self.inputs[0] + part], f"{self.path}: {self.inputs[0]}{part}")
        given = [name + part for name in (*self.inputs, *self.names, *filter(None, [self.weights])) if name + part in arrays]
        same_length([(name, arrays[name]) for name in given], str(self.path))
        targets = {}
        for name in self.names:
            y, every = as_text(arrays[name + part]), [as_text(arrays[name + each]) for each in parts]
            if len({each.dtype.kind == "U" for each in every}) > 1:
                raise RecipeError(f"{self.path}: {name} holds text in one split and numbers in another: give both the same")
            text = np.unique(np.concatenate([each.ravel() for each in every])) if y.dtype.kind == "U" else None
            task = name if len(self.names) > 1 else ""
            where = f"{self.path}: {name}{part}"
            targets[task] = as_labels(y, where, text, self.ignored) if self.task is None else as_several_labels(y, where)
            if text is not None:
                self.class_names[task] = tuple(map(str, text))
        return self._inputs(arrays, part, targets)

    def _weight(self, arrays: dict[str, Any], part: str) -> Tensor | None:
        name = f"{self.weights}{part}"
        return as_weights(arrays[name], f"{self.path}: {name}") if self.weights is not None and name in arrays else None

    def _inputs(self, arrays: dict[str, Any], part: str, targets: dict[str, Tensor]) -> Source:
        """A split of inputs and targets."""
        x, where = arrays[self.inputs[0] + part], f"{self.path}: {self.inputs[0]}{part}"
        if isinstance(x, StoredArray):
            remark = f"{x.nbytes / 2**30:.2f} GiB stay in {self.path} and are read as they are needed: data.in_memory=true loads them"
            try:
                return Stored(x, targets, where, remark, self.workers, self._weight(arrays, part))
            except RecipeError:
                raise
            except BROKEN as error:
                raise damaged(self.path, error) from None
        if self.is_named:
            named = {name: as_named_input(arrays[name + part], f"{self.path}: {name}{part}") for name in self.inputs}
            return Split(named, targets, weight=self._weight(arrays, part))
        return Split(as_inputs(x, where), targets, weight=self._weight(arrays, part))


def array_names(path: Path) -> list[str]:
    """The names of the arrays in an npz file, or in a folder of npy files."""
    if path.is_dir():
        return sorted(file.stem for file in path.glob("*.npy"))
    try:
        with open(path, "rb") as file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                raise RecipeError(
                    f"{path} is one array, and inputs and targets are two: write both with numpy.savez, or give a folder with a file NAME.npy "
                    f"for each (data.path=FOLDER)"
                )
        with np.load(path, allow_pickle=False) as arrays:
            return list(arrays.files)
    except RecipeError:
        raise
    except BROKEN:
        raise RecipeError(f"{path} cannot be read as an npz file: write it with numpy.savez") from None


def expect_names(path: Path, names: Sequence[str]) -> None:
    """Refuse a file that lacks one of the arrays."""
    there = array_names(path)
    if not there:
        raise RecipeError(f"data.path must be an npz file or a folder of npy files, and {path} holds no array")
    if missing := [name for name in names if name not in there]:
        raise RecipeError(f"{path} has no array {', '.join(missing)}: it has {', '.join(there) or 'none'}")


def stored_array(path: Path, name: str) -> StoredArray:
    """Where an array lies in an npz file or a folder of npy files; raises one of `BROKEN` where it cannot be read row by row."""
    return StoredArray(path / f"{name}.npy") if path.is_dir() else StoredArray(path, f"{name}.npy")


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of an npz file, or of a folder of npy files; never unpickles."""
    expect_names(path, names)
    expect_room(path, names)
    try:
        if path.is_dir():
            return {name: np.load(path / f"{name}.npy", allow_pickle=False) for name in names}
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except BROKEN as error:
        if isinstance(error, MemoryError) and all(told <= there for told, there in (sizes(path, name) for name in names)):
            raise
        told = damaged(path, error)
    raise told  # out of the handler: it may have told of memory that nobody needs


def damaged(path: Path, error: Exception) -> RecipeError:
    """The error about a file that cannot be read to its end, or whose arrays hold objects."""
    if "Object arrays" in str(error):
        return RecipeError(
            f"{path} holds an array of Python objects, which are never unpickled: write numbers or text, such as y.astype(str) once samples "
            f"without a label are left out, and lists padded to one length"
        )
    return RecipeError(f"{path} is damaged: {(str(error).splitlines() or [type(error).__name__])[0]}")


def sizes(path: Path, name: str) -> tuple[int, int]:
    """The bytes of an array that its head tells of, and those that the file has for it; a damaged head may tell of any number."""
    with suppress(*BROKEN):
        if path.is_dir():
            with open(path / f"{name}.npy", "rb") as file:
                shape, _, dtype = head(file)
                return math.prod(shape) * dtype.itemsize, (path / f"{name}.npy").stat().st_size
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{name}.npy")
            with archive.open(entry) as file:
                shape, _, dtype = head(file)
                return math.prod(shape) * dtype.itemsize, entry.file_size
    return 1, 0


def expect_room(path: Path, names: Sequence[str]) -> None:
    """Refuse arrays that the memory does not hold before they are read: a small file may be many times as large when it is unpacked."""
    size, free = sum(min(sizes(path, name)) for name in names), available()
    if size > free:
        raise RecipeError(
            f"out of memory: {', '.join(names)} of {path} take {size / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free: take fewer samples "
            f"or features, or write the file uncompressed (numpy.savez) and leave data.in_memory out, so that it is read as it is needed"
        )
