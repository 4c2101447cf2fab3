"""A table that names image files and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from plugins.base import RecipeError
from recipes.data import table_targets
from recipes.data.columns import CATEGORICAL, Values, look, read
from recipes.data.table import MISSING, Table, shown
from recipes.data.table_targets import decide, kind_of_target


@dataclass(frozen=True)
class Named:
    """The rows of a table of labels.

    Args:
        names: of the files, as the table has them.
        lines: of the table, where the rows begin.
        targets: of the rows, one tensor a task.
        class_names: by task.
        remark: what the targets are.
    """

    names: list[str]
    lines: list[int]
    targets: dict[str, Tensor]
    class_names: dict[str, tuple[str, ...]]
    remark: str


def read_labels(path: Path, separator: str, column: str, targets: Sequence[str], task: str | None) -> Named:
    """Read a table of labels.

    Args:
        path: the csv file.
        separator: what stands between two cells.
        column: name of the column that names the files.
        targets: names of the columns to predict.
        task: what they are, as in `data=csv`.

    Raises:
        RecipeError: no such file or column, an empty cell, a file that is named twice, labels that cannot be right.
    """
    table, missing = Table(path, separator, "data.labels"), frozenset(["", *MISSING])
    table.expect_columns([column], "data.file")
    table.expect_columns(targets, "data.target")
    if column in targets:
        raise RecipeError(f"data.target must be another column than data.file, got {shown(column)}")
    kinds = {}
    for name, seen in look(table, targets, missing).items():
        where = f"{path}: column {shown(name)}"
        renamed = f", or give a class that is called {shown(seen.mark)} another name" if seen.mark else ""
        table_targets.refuse_holes(seen, where, renamed)
        kinds[name] = kind_of_target(seen, where, task)
    lines, values = read(table, {**kinds, column: CATEGORICAL}, missing)
    found = [decide(name, values[name], task, f"{path}: column {shown(name)}") for name in targets]
    return Named(
        names_of(values[column], lines, f"{path}: column {shown(column)}"),
        lines.tolist(),
        table_targets.by_task(found, values, lines, f"{path}: column ", task),
        table_targets.class_names(found, task),
        table_targets.told(found, task),
    )


def names_of(values: Values, lines: np.ndarray, where: str) -> list[str]:
    """The cells of a column in which each is filled and another one."""
    seen: dict[int, int] = {}
    words = values.words or []
    for number, line in zip(values.numbers.tolist(), lines.tolist(), strict=True):
        if number != number:  # NaN
            raise RecipeError(f"{where}, line {line}: the cell is empty: it must name a file")
        if number in seen:
            raise RecipeError(
                f"{where}, line {line} names {shown(words[int(number)])}, as line {seen[number]} does: give each image one row, and for "
                f"several labels a column for each (data.task=multilabel)"
            )
        seen[number] = line
    return [words[int(number)] for number in values.numbers]
