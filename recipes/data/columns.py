"""What the columns of a table hold: numbers or categories, looked at before they are read, or a refusal that says what stands there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from plugins.base import RecipeError
from recipes.data.table import Table, lines_in_words, shown

NUMERIC, CATEGORICAL = "numeric", "categorical"
MOSTLY = 0.9  # share of cells from which on the others are taken for mistakes
MANY_NUMBERS = 20  # so many different ones, and more, are no names of categories
FEW_WORDS = 3  # so many different texts among these are marks or mistakes, and no categories
FEW_ROWS = 20  # up to which texts that all differ may be categories
FIRST = 3  # lines that a message names
LARGEST = float(np.finfo(np.float32).max)
DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})([T ].*)?")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass
class Look:
    """What stands in a column, counted."""

    rows: int = 0
    holes: int = 0
    numbers: int = 0
    dates: int = 0
    commas: int = 0
    hole_lines: list[int] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)  # the first cells that are no numbers
    words: set[str] = field(default_factory=set)  # different texts, and
    different: set[float] = field(default_factory=set)  # different numbers, of either a few more than are asked for
    mark: str = ""  # of the first hole that is not empty

    @property
    def filled(self) -> int:
        """The cells that hold something."""
        return self.rows - self.holes

    @property
    def many_numbers(self) -> bool:
        """Whether so many different numbers stand there as no categories have."""
        return len(self.different) > MANY_NUMBERS


@dataclass
class Values:
    """A column that was read: numbers with NaN for holes, or places among its sorted words."""

    numbers: np.ndarray
    words: list[str] | None


def number_of(cell: str) -> float | None:
    """The number that a cell is; None where it is text."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def all_numbers(cells: Sequence[str], missing: frozenset[str]) -> list[float] | None:
    """The numbers that cells are, where all of them are some and none is a hole: several times faster than one by one."""
    if not missing.isdisjoint(cells) or "_" in "\n".join(cells):
        return None
    try:
        return list(map(float, cells))
    except ValueError:
        return None


def look(table: Table, names: Sequence[str], missing: frozenset[str]) -> dict[str, Look]:
    """Count what stands in some columns of a table.

    Args:
        table: of which.
        names: of the columns.
        missing: cells that are holes.
    """
    looks = {name: Look() for name in names}
    for lines, columns in table.columns(names):
        for column, cells in zip(looks.values(), columns, strict=True):
            _count(column, lines, cells, missing)
    if not any(column.rows for column in looks.values()):
        raise RecipeError(f"{table.path} has no rows below its header")
    return looks


def _count(column: Look, lines: Sequence[int], cells: Sequence[str], missing: frozenset[str]) -> None:
    column.rows += len(cells)
    if (numbers := all_numbers(cells, missing)) is not None:
        column.numbers += len(cells)
        _keep_different(column, numbers)
        return
    numbers = []
    for line, cell in zip(lines, cells, strict=True):
        if cell in missing:
            column.holes += 1
            column.mark = column.mark or cell
            if len(column.hole_lines) < FIRST:
                column.hole_lines.append(line)
        elif (number := number_of(cell)) is not None:
            numbers.append(number)
        else:
            column.dates += DATE.fullmatch(cell) is not None
            column.commas += DECIMAL_COMMA.fullmatch(cell) is not None
            if len(column.texts) < FIRST:
                column.texts.append((line, cell))
            if len(column.words) <= FEW_WORDS:
                column.words.add(cell)
    column.numbers += len(numbers)
    _keep_different(column, numbers)


def _keep_different(column: Look, numbers: Sequence[float]) -> None:
    if not column.many_numbers:
        found = {*column.different, *numbers}
        column.different = {*islice((number for number in found if number == number), MANY_NUMBERS + 1)}


def kind_of_column(
    column: Look, where: str, otherwise: str, fix: str = "name what is a hole in data.missing", mixed: bool = True
) -> str:
    """Whether a column is numeric or categorical.

    Args:
        column: what stands in it.
        where: the file and the column, for the error.
        otherwise: what else to do with a column that is refused, for the error.
        fix: what to do with texts among numbers, for the error.
        mixed: whether many different numbers beside more than a few texts are categories; refused otherwise.

    Raises:
        RecipeError: it holds nothing, dates, numbers but for a few cells, or many numbers beside a few texts.
    """
    if not column.filled:
        raise RecipeError(f"{where} has no value in any of its {column.rows} rows: {otherwise}")
    if column.numbers == column.filled:
        return NUMERIC
    if column.dates >= MOSTLY * column.filled:
        raise RecipeError(
            f"{where} holds dates, such as {shown(column.texts[0][1])} in line {column.texts[0][0]}: write them as numbers, such as days, "
            f"or {otherwise}"
        )
    if column.commas >= MOSTLY * column.filled:
        raise RecipeError(
            f"{where} holds numbers with a decimal comma, such as {shown(column.texts[0][1])} in line {column.texts[0][0]}: write them "
            f"with a point, or {otherwise}"
        )
    are_marks = column.many_numbers and (len(column.words) <= FEW_WORDS or not mixed)
    if are_marks or column.numbers >= MOSTLY * column.filled:
        texts = ", ".join(f"{shown(cell)} in line {line}" for line, cell in column.texts)
        others = column.filled - column.numbers
        raise RecipeError(
            f"{where} holds numbers but for {others} of {column.filled} cells ({texts}{', …' if others > FIRST else ''}): correct "
            f"these, {fix}, or {otherwise}"
        )
    return CATEGORICAL


def unless_named(mark: str) -> str:
    """What to type where a mark of holes is none, for the error about holes; empty without a mark."""
    return f"; where {shown(mark)} is no hole, name what is one: data.missing=[WORDS], [] for empty cells alone" if mark else ""


def refuse_holes(looks: Mapping[str, Look], table: Table, leave_out: Callable[[str], str]) -> None:
    """Refuse inputs with holes, which nothing fills.

    Args:
        looks: at the inputs.
        table: of which they are columns.
        leave_out: what to type to leave one of them out.
    """
    if with_holes := [name for name, column in looks.items() if column.holes]:
        name, more = with_holes[0], len(with_holes) - 1
        column = looks[name]
        others = f" and so do {more} more columns" if more > 1 else " and so does one more column" if more else ""
        raise RecipeError(
            f"{table.path}: column {shown(name)} has {column.holes} holes in {column.rows} rows "
            f"({lines_in_words(column.hole_lines, column.holes)}){others}: fill them by data.impute=median, mean or most_frequent, or leave "
            f"the column out by {leave_out(name)}{unless_named(column.mark)}"
        )


def read(table: Table, kinds: Mapping[str, str], missing: frozenset[str]) -> tuple[np.ndarray, dict[str, Values]]:
    """The lines of all rows, and the columns by name.

    Args:
        table: of which.
        kinds: of each column, `numeric` or `categorical`.
        missing: cells that are holes.

    Raises:
        RecipeError: a numeric column with a cell that is no number, or none of 32 bits.
    """
    places: list[list[int]] = []
    found: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    words: dict[str, dict[str, int]] = {name: {} for name, kind in kinds.items() if kind == CATEGORICAL}
    for lines, columns in table.columns(list(kinds)):
        places.append(lines)
        for name, cells in zip(kinds, columns, strict=True):
            if (known := words.get(name)) is None:
                found[name].append(_numbers(f"{table.path}: column {shown(name)}", lines, cells, missing))
            else:
                found[name].append(
                    np.array([np.nan if cell in missing else known.setdefault(cell, len(known)) for cell in cells])
                )
    if not places:
        raise RecipeError(f"{table.path} has no rows below its header")
    return np.concatenate(places), {
        name: _sorted(np.concatenate(parts), words[name]) if name in words else Values(np.concatenate(parts), None)
        for name, parts in found.items()
    }


def _numbers(where: str, lines: Sequence[int], cells: Sequence[str], missing: frozenset[str]) -> np.ndarray:
    given: Sequence[float | None] | None = all_numbers(cells, missing)
    if given is None:
        given = [np.nan if cell in missing else number_of(cell) for cell in cells]
    numbers = np.array(given, dtype=float)  # None becomes NaN
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(numbers) <= LARGEST)
    for place in np.flatnonzero(wrong).tolist():
        cell = cells[place]
        if cell in missing:
            continue
        if given[place] is None:
            reason = "is no number, and this column holds numbers"
        elif np.isfinite(numbers[place]):
            reason = f"is beyond the numbers of 32 bits, ±{LARGEST:.2g}: give it in a larger unit"
        else:
            reason = "is no finite number: correct it, or name it in data.missing"
        raise RecipeError(f"{where}, line {lines[place]}: {shown(cell)} {reason}")
    return numbers


def _sorted(numbers: np.ndarray, words: Mapping[str, int]) -> Values:
    """The places among the sorted words in place of those in the order in which they came."""
    ordered = sorted(words)
    place = np.empty(len(words))
    place[[words[each] for each in ordered]] = np.arange(len(words))
    known = ~np.isnan(numbers)
    numbers[known] = place[numbers[known].astype(np.int64)]
    return Values(numbers, ordered)


def refuse_id(values: Values, where: str, otherwise: str) -> None:
    """Refuse texts of which each stands in one row only, as those that name it."""
    filled = int((~np.isnan(values.numbers)).sum())
    if values.words is not None and filled > FEW_ROWS and len(values.words) == filled:
        raise RecipeError(f"{where} is another value in each row, as an id: {otherwise}")


def counts_rows(values: Values) -> bool:
    """Whether a column of numbers goes up by one from each row to the next, over more than a few: such an id gives the order of rows away."""
    return values.words is None and len(values.numbers) > FEW_ROWS and bool((np.diff(values.numbers) == 1).all())
