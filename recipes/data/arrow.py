"""Columns of tables in Arrow's format as arrays and images, a piece of the rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from plugins.base import RecipeError
from recipes.data.images import Looked, look_at_content, unreadable
from recipes.data.source import LARGEST_PIECE, PIECE

READERS = 8  # threads that look at images once; they wait for the disk


def pieces(table: Any) -> Iterator[tuple[Any, range]]:
    """All rows of a table in order, as Arrow's tables that fit into the memory, and their numbers."""
    size = max(1, min(PIECE, LARGEST_PIECE // max(1, table.data.nbytes // max(1, len(table.data)))))
    for start in range(0, len(table), size):
        rows = range(start, min(start + size, len(table)))
        yield table[rows.start : rows.stop], rows


def as_array(cells: Any, where: str, rows: Sequence[int], text: bool = False) -> np.ndarray:
    """The cells of a column as an array (rows, *shape): numbers, truth values, lists of them that are equally long, or texts.

    Args:
        cells: Arrow's array in chunks.
        where: the column's place, for errors.
        rows: the numbers of the rows.
        text: whether texts are taken.

    Raises:
        RecipeError: an empty cell, lists of several lengths, any other type.
    """
    import pyarrow as pa

    array, sizes = cells.combine_chunks(), [len(cells)]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if array.null_count:
            place = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0]) // int(np.prod(sizes[1:]))
            raise RecipeError(f"{where}, row {rows[place]}: the cell is empty: fill it, or take the row away")
        if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)):
            break
        lengths = array.value_lengths().to_numpy(zero_copy_only=False)
        if len(lengths) and (other := np.flatnonzero(lengths != lengths[0])).size:
            row = rows[int(other[0]) // int(np.prod(sizes[1:]))]
            raise RecipeError(
                f"{where}: lists differ in length, {lengths[0]} in row {rows[0]} and {lengths[other[0]]} in row {row}: pad them to one length, and "
                f"tell of it by a mask (data.input=[NAME,mask])"
            )
        sizes.append(int(lengths[0]) if len(lengths) else 0)
        array = array.flatten()
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.array(array.to_numpy(zero_copy_only=False)).reshape(sizes)  # a copy: what is mapped cannot be written to
    if pa.types.is_decimal(kind):
        return array.cast(pa.float64()).to_numpy().reshape(sizes)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if text:
            return np.array(array.to_pylist(), dtype=str).reshape(sizes)
        raise RecipeError(f"{where} holds text, expected numbers, lists of them or images: encode it, or take other columns")
    raise RecipeError(
        f"{where} holds {kind}, expected numbers, lists of them or images: write it as such, or take other columns"
    )


def content_of(cell: Any, row: int, where: str) -> bytes:
    """The file of an image, which is in the table or beside it.

    Args:
        cell: of a column of images: its `bytes`, or its `path`.
        row: its number.
        where: the column's place, for errors.
    """
    if cell is None or (cell["bytes"] is None and not cell["path"]):
        raise RecipeError(f"{where}, row {row}: the cell is empty: fill it, or take the row away")
    if cell["bytes"] is not None:
        return cell["bytes"]
    try:
        return Path(cell["path"]).read_bytes()
    except OSError as error:
        raise unreadable(f"{where}, row {row}: {cell['path']}", error) from None


def look_at_images(table: Any, where: str) -> list[Looked]:
    """Read each image of a table's only column once.

    Args:
        table: of which.
        where: the column's place, for errors.
    """

    def look(cell: Any, row: int) -> Looked:
        return look_at_content(content_of(cell, row, where), f"{where}, row {row}")

    found: list[Looked] = []
    with ThreadPoolExecutor(READERS) as pool:
        for cells, rows in pieces(table):
            found += pool.map(look, cells.column(0).to_pylist(), rows)
    return found


def as_one(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Columns as one array: numbers side by side as features (rows, columns), one column of any other shape as it is."""
    x = next(iter(columns.values()))
    return x if x.ndim > 1 else np.stack(list(columns.values()), 1)
