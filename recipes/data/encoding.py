"""What is learned of the training rows of a table, and how rows become features by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from plugins.base import RecipeError
from recipes.data.columns import CATEGORICAL, NUMERIC
from recipes.data.memory import COPIES, fits
from recipes.data.table import shown, word
from recipes.launch.ranks import world

MOST_FEATURES = 10_000
drop_alone: Callable[[str], str] = partial(word, "data.drop")  # to leave a column out where no other one is


def _most_frequent(numbers: np.ndarray) -> float:
    values, counts = np.unique(numbers, return_counts=True)
    return float(values[counts.argmax()])  # the smallest of several


IMPUTE: dict[str, Callable[[np.ndarray], Any]] = {"mean": np.mean, "median": np.median, "most_frequent": _most_frequent}


@dataclass(frozen=True)
class Column:
    """An input column and what was learned of it.

    Args:
        name: of the column.
        kind: `numeric` or `categorical`.
        fill: what stands for holes; None: there must be none.
        categories: of the training rows, sorted, one feature each.
    """

    name: str
    kind: str
    fill: float | str | None = None
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many features it becomes."""
        return 1 if self.kind == NUMERIC else len(self.categories)


def learn(
    x: np.ndarray,
    names: Sequence[str],
    words: Sequence[list[str] | None],
    impute: str | None,
    where: str,
    leave_out: Callable[[str], str] = drop_alone,
) -> list[Column]:
    """What is learned of the training rows.

    Args:
        x: rows and columns: numbers, or places among the column's words; NaN for holes.
        names: of the columns.
        words: of each column, None for numbers.
        impute: `mean`, `median` or `most_frequent` of the numbers, which holes are filled with, and the most frequent category; None: no hole is.
        where: the file, for the error.
        leave_out: what to type to leave a column out, for the error.

    Raises:
        RecipeError: a column without a value in these rows, or more than 10,000 features.
    """
    learned = []
    for number, (name, known) in enumerate(zip(names, words, strict=True)):
        values = x[:, number]
        values = values[~np.isnan(values)]
        if not len(values):
            raise RecipeError(
                f"{where}: column {shown(name)} has no value in any of the {len(x)} training rows: leave it out by "
                f"{leave_out(name)}"
            )
        if known is None:
            learned.append(Column(name, NUMERIC, float(IMPUTE[impute](values)) if impute else None))
        else:
            counts = np.bincount(values.astype(np.int64), minlength=len(known))
            categories = tuple(category for category, count in zip(known, counts, strict=True) if count)
            learned.append(Column(name, CATEGORICAL, known[int(counts.argmax())] if impute else None, categories))
    if (features := sum(column.width for column in learned)) > MOST_FEATURES:
        most = max(learned, key=lambda column: column.width)
        raise RecipeError(
            f"{where}: the columns become {features:,} features, more than {MOST_FEATURES:,}; most of them, {most.width:,}, are the "
            f"categories of {shown(most.name)}: leave it out by {leave_out(most.name)}"
        )
    return learned


def encode(
    x: np.ndarray,
    words: Sequence[list[str] | None],
    columns: Sequence[Column],
    unseen: str,
    lines: np.ndarray,
    where: str,
    leave_out: Callable[[str], str] = drop_alone,
) -> np.ndarray:
    """Rows as features of 32 bits: the numeric columns in their order, then of each categorical one a feature for each category, 0 or 1.

    Args:
        x: rows and columns, as `learn` takes them.
        words: of each column of these rows, which need not be those of the training rows.
        columns: what was learned.
        unseen: what becomes of a category that no training row has: `error`, or `ignore`: zeros.
        lines: of the rows, for the error.
        where: the file, for the error.
        leave_out: what to type to leave a column out, for the error.

    Raises:
        RecipeError: a category that no training row has, a hole that nothing fills.
    """
    width = sum(column.width for column in columns)
    if not fits(4.0 * len(x) * width / COPIES, world()):  # there is one array of them
        most = max(columns, key=lambda column: column.width)
        raise RecipeError(
            f"{where}: {len(x):,} rows of {width:,} features take {4 * len(x) * width / 2**30:.1f} GiB, for which the memory is too small; "
            f"most features, {most.width:,}, are of {shown(most.name)}: leave it out by {leave_out(most.name)}"
        )
    features = np.zeros((len(x), width), dtype=np.float32)
    order = sorted(range(len(columns)), key=lambda number: columns[number].kind != NUMERIC)
    start = 0
    for number in order:
        column, values, known = columns[number], x[:, number], words[number]
        holes = np.isnan(values)
        if column.fill is None and holes.any():
            raise RecipeError(
                f"{where}: column {shown(column.name)} has a hole in line {lines[holes.argmax()]}, and nothing fills it: the training "
                f"needs data.impute=median, mean or most_frequent"
            )
        if column.kind == NUMERIC:
            features[:, start] = np.where(holes, column.fill if column.fill is not None else 0.0, values)
        else:
            places = _places(column, values, holes, known or [])
            rows = np.flatnonzero(places >= 0)
            if unseen == "error" and len(rows) < len(places):
                row = int((places < 0).argmax())
                raise RecipeError(
                    f"{where}: column {shown(column.name)}, line {lines[row]}: no training row holds {shown((known or [])[int(values[row])])}; "
                    f"data.unseen=ignore gives such a category zeros"
                )
            features[rows, start + places[rows]] = 1
        start += column.width
    return features


def _places(column: Column, values: np.ndarray, holes: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """The place of each row among the categories of the training rows; -1 where it is none of them."""
    place = {category: number for number, category in enumerate(column.categories)}
    by_code = np.array([*(place.get(each, -1) for each in words), place.get(str(column.fill), -1)])
    return by_code[np.where(holes, len(words), values).astype(np.int64)]


def as_plain(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """What was learned as lists, texts and numbers, which a checkpoint keeps."""
    return [asdict(column) | {"categories": list(column.categories)} for column in columns]


def from_plain(kept: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The reverse of `as_plain`; raises a TypeError, ValueError or KeyError for anything else."""
    columns = []
    for each in kept:
        values = {entry.name: each[entry.name] for entry in fields(Column)}
        fill, categories = values["fill"], tuple(values["categories"])
        numeric = values["kind"] == NUMERIC
        right = isinstance(values["name"], str) and all(isinstance(category, str) for category in categories)
        if (
            not right
            or values["kind"] not in (NUMERIC, CATEGORICAL)
            or (not isinstance(fill, float if numeric else str) and fill is not None)
        ):
            raise ValueError(f"no column: {values}")
        columns.append(Column(values["name"], values["kind"], fill, categories))
    return columns
