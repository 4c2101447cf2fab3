"""Columns of Arrow's format whose rows are taken where they are mapped, without a table of the rows in between."""

from __future__ import annotations

from typing import Any

import numpy as np

from recipes.data.arrow import pieces

LEAST = 256  # bytes of a row from which on this is faster


class Mapped:
    """A column of equally long lists of numbers, as arrays that lie where the table is mapped.

    Args:
        table: a `datasets.Dataset` that gives its rows as tables of Arrow.
        name: of the column, looked at before: no cell is empty, lists are equally long.
    """

    def __init__(self, table: Any, name: str) -> None:
        self.table, self.name = table, name
        self._parts: tuple[list[np.ndarray], np.ndarray] | None = None

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Rows by number, in any order, any of them several times, as a copy."""
        if self._parts is None:
            arrays = [as_view(chunk) for chunk in self.table.data.column(self.name).chunks if len(chunk)]
            self._parts = arrays, np.cumsum([0, *map(len, arrays)])
        arrays, begins = self._parts
        parts = np.searchsorted(begins, index, "right") - 1
        found = np.empty((len(index), *arrays[0].shape[1:]), arrays[0].dtype)
        for place, (part, row) in enumerate(zip(parts.tolist(), (index - begins[parts]).tolist(), strict=True)):
            found[place] = arrays[part][row]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_parts": None}


def mapped(table: Any, name: str) -> Mapped | None:
    """A column as it is mapped; None where its rows are small or no lists of numbers, or the table gives them in another order than it has them."""
    import pyarrow as pa

    try:
        first = as_view(table.data.column(name).chunk(0))
    except (pa.ArrowInvalid, ValueError, IndexError):
        return None
    if first.ndim < 2 or first[:1].nbytes < LEAST:
        return None
    for cells, rows in pieces(table):
        there = table.data.slice(rows.start, len(rows)).column(name)
        if [place_of(chunk) for chunk in cells.column(name).chunks] != [place_of(chunk) for chunk in there.chunks]:
            return None
    return Mapped(table, name)


def as_view(array: Any) -> np.ndarray:
    """Lists of numbers as an array (rows, *shape) in the memory where they lie.

    Raises:
        pyarrow.ArrowInvalid, ValueError: they would have to be copied.
    """
    import pyarrow as pa

    sizes = [len(array)]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)):
            return array.to_numpy(zero_copy_only=True).reshape(sizes)
        array = array.flatten()
        sizes.append(len(array) // max(1, int(np.prod(sizes))))


def place_of(array: Any) -> tuple[int, int, int]:
    """Where the numbers of an array lie."""
    storage = getattr(array, "storage", array)
    return next(buffer.address for buffer in reversed(storage.buffers()) if buffer is not None), storage.offset, len(storage)
