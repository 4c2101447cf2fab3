"""A user's own arrays, from an npz file."""

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

from plugins.base import RecipeError, expect
from recipes.data.arrays import as_features, as_images, as_labels, check_inputs, same_length
from recipes.data.base import Data
from recipes.data.split import Split

BROKEN: tuple[type[Exception], ...] = (  # what a damaged file makes NumPy, zipfile and zlib raise
    *(ValueError, OSError, EOFError, KeyError, TypeError, MemoryError, NotImplementedError, OverflowError, RuntimeError),
    *(SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


class NpzData(Data):
    """Inputs and one or several targets from an npz file.

    The arrays are named `input` and `target`; where the file has them with the endings _train and _test, these are the
    splits. Inputs with three or four dimensions are images (bytes, or numbers in [0, 1]), with two dimensions features.
    Whole-number or text targets are classes, floats a regression.

    Args:
        path: the file.
        input: name of the array of inputs.
        target: name of the array of targets, or a list of names: one task each.
    """

    def __init__(self, path: str | None = None, input: str = "x", target: str | Sequence[str] = "y", **split: Any) -> None:
        super().__init__(**split)
        expect(path is not None, "data.path", "the path of an npz file (data=npz data.path=FILE)", path)
        self.path, self.input = Path(str(path)), input
        self.names = [target] if isinstance(target, str) else list(target)
        expect(bool(self.names), "data.target", "the name of at least one array", target)
        expect(len({*self.names}) == len(self.names), "data.target", "names of which each is given once", target)

    def load(self) -> tuple[Split, Split | None]:
        """Tensors of the file's arrays."""
        if not self.path.is_file():  # a pipe would be waited for
            raise RecipeError(
                f"no file {self.path.absolute()}: data.path must be an npz file with arrays of inputs and targets"
            )
        there = array_names(self.path)
        wanted = [self.input, *self.names]
        if all(f"{name}_train" in there for name in wanted):
            parts = ["_train", "_test"] if all(f"{name}_test" in there for name in wanted) else ["_train"]
        else:
            parts = [""]
        arrays = read_arrays(self.path, [name + part for part in parts for name in wanted])
        splits = [self._split(arrays, parts, part) for part in parts]
        return splits[0], splits[1] if len(splits) > 1 else None

    def _split(self, arrays: dict[str, np.ndarray], parts: Sequence[str], part: str) -> Split:
        x, where = arrays[self.input + part], f"{self.path}: {self.input}{part}"
        check_inputs(x, where)
        same_length([(name + part, arrays[name + part]) for name in (self.input, *self.names)], str(self.path))
        targets = {}
        for name in self.names:
            y = arrays[name + part]
            text = np.unique(np.concatenate([arrays[name + each].ravel() for each in parts])) if y.dtype.kind in "US" else None
            task = name if len(self.names) > 1 else ""
            targets[task] = as_labels(y, f"{self.path}: {name}{part}", text, self.ignored)
            if text is not None:
                self.class_names[task] = tuple(map(str, text))
        return Split(as_features(x, where) if x.ndim == 2 else as_images(x, where), targets)


def array_names(path: Path) -> list[str]:
    """The names of the arrays in an npz file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise RecipeError(f"{path} is no npz file: write it with numpy.savez")
            return list(file.files)
    except RecipeError:
        raise
    except BROKEN:
        raise RecipeError(f"{path} cannot be read as an npz file: write it with numpy.savez") from None


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of an npz file; never unpickles."""
    there = array_names(path)
    if missing := [name for name in names if name not in there]:
        raise RecipeError(f"{path} has no array {', '.join(missing)}: it has {', '.join(there) or 'none'}")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except BROKEN as error:
        if isinstance(error, MemoryError) and all(is_as_large_as_told(path, name) for name in names):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
    raise RecipeError(f"{path} is damaged: {first}")  # out of the handler: it may have told of memory that nobody needs


def is_as_large_as_told(path: Path, name: str) -> bool:
    """Whether the file has the bytes of an array that the array's head tells of; a damaged head may tell of any number."""
    with suppress(*BROKEN), zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{name}.npy")
        with archive.open(entry) as file:
            major = np.lib.format.read_magic(file)[0]
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            return math.prod(shape) * dtype.itemsize <= entry.file_size
    return False
