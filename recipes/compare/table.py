"""The comparison as a table: on the terminal, as csv, markdown and LaTeX. Nothing here imports torch."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from plugins.errors import RecipeError
from recipes.compare.csv_files import OF_THE_METRIC, VALUES
from recipes.compare.groups import Comparison
from recipes.compare.statistics import SIGNIFICANT, Row
from recipes.config.errors import printable
from recipes.config.spelling import suggest

TIMES = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
SIZES = ((1e9, "GB"), (1e6, "MB"))
DIGITS, MOST_DIGITS = 4, 8  # behind the point
LEAST_LABEL = 24  # letters of a label in one line before columns are dropped for it
DROPPED = ("memory", "interval", "time")  # in this order where the terminal is narrow


def arrange(rows: Sequence[Row], larger: bool, column: str | None = None) -> list[Row]:
    """Rows sorted by a column, the best first; rows without a value come last.

    For the metric and differences in it the best is the largest where `larger`, else the smallest; of numbers of runs and pairs
    it is the largest, of all others the smallest.
    """
    column = column or "mean"
    if column not in VALUES:
        raise RecipeError(f"--sort {column}: there is no such column; {suggest(column, VALUES, '--sort {}')}")
    descending = larger if column in OF_THE_METRIC else column in ("n", "pairs", "baseline")

    def is_there(row: Row) -> bool:
        value = VALUES[column](row)
        return value is not None and value == value

    there = sorted(filter(is_there, rows), key=VALUES[column], reverse=descending)
    return there + [row for row in rows if not is_there(row)]


# Files


# What people read


@dataclass(frozen=True)
class Column:
    """A column as it is read: a heading and a text for each row."""

    name: str
    heading: str
    cells: list[str]

    @property
    def marked(self) -> bool:
        """Whether its cell stands out where a difference is significant."""
        return self.name in ("difference", "p")

    @property
    def left(self) -> bool:
        """Whether its cells start below each other."""
        return self.name in ("label", "mean", "difference")

    def lines(self) -> list[str]:
        """The heading and the cells, as wide as the widest of them."""
        texts = [self.heading, *self.cells]
        width = max(map(len, texts))
        return [text.ljust(width) if self.left else text.rjust(width) for text in texts]


def title(comparison: Comparison) -> str:
    """What the numbers are."""
    better = "larger" if comparison.larger else "smaller"
    return f"{comparison.metric}, {better} is better"


def legend(rows: Sequence[Row]) -> str:
    """What the signs in the table mean."""
    parts = []
    if any(row.deviation is not None for row in rows):
        parts.append("± standard deviation")
    if any(row.interval or row.difference_interval for row in rows):
        parts.append("[95 % interval]")
    if any(row.difference is not None for row in rows):
        parts.append("difference: to the baseline, paired by seed")
    if any(row.p is not None for row in rows):
        parts.append(f"p: corrected, * below {SIGNIFICANT}")
    return "; ".join(parts)


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns that have something to say."""
    digits = decimals(rows)
    found = [
        Column("label", "", [row.label + " (baseline)" * (row.baseline and len(rows) > 1) for row in rows]),
        Column("n", "n", [str(row.n) for row in rows]),
        Column("mean", "mean", [mean(row, digits) for row in rows]),
        Column("interval", "95 % interval", [_interval(row.interval, digits) for row in rows]),
        Column("difference", "difference", [_difference(row, digits) for row in rows]),
        Column("p", "p", [_p(row) for row in rows]),
        Column("time", "time", _cost([row.seconds for row in rows], [row.seconds_ratio for row in rows], TIMES)),
        Column("memory", "memory", _cost([row.memory for row in rows], [row.memory_ratio for row in rows], SIZES)),
    ]
    return [column for column in found if any(column.cells)]


def decimals(rows: Sequence[Row]) -> int:
    """Digits behind the point, the same for all rows.

    At least two significant digits of the smallest deviation and mean and one of the smallest interval of a difference, as far
    as four digits go; more only where half of the deviations need them, or without any half of the means.
    """
    deviations = sorted(row.deviation for row in rows if row.deviation and row.interval)
    means = [abs(row.mean) for row in rows if row.mean and math.isfinite(row.mean)]
    if not deviations:
        return max(DIGITS, min(_two_digits(sorted(means)[len(means) // 2]), MOST_DIGITS)) if means else DIGITS
    halves = [(high - low) / 2 for low, high in (row.difference_interval for row in rows if row.difference_interval)]
    smallest = min([deviations[0], *means, *(10 * half for half in halves)])
    return max(min(_two_digits(smallest), DIGITS), min(_two_digits(deviations[len(deviations) // 2]), MOST_DIGITS))


def _two_digits(size: float) -> int:
    """Digits behind the point of which two are significant in a number of this size."""
    return max(1 - math.floor(math.log10(size)), 0)


def mean(row: Row, digits: int) -> str:
    """Mean and deviation."""
    if math.isnan(row.mean):
        return "no number"
    if row.deviation is None:
        return f"{row.mean:.{digits}f}"
    return f"{row.mean:.{digits}f} ± {row.deviation:.{digits}f}"


def _interval(interval: tuple[float, float] | None, digits: int, sign: str = "") -> str:
    return f"[{interval[0]:{sign}.{digits}f}, {interval[1]:{sign}.{digits}f}]" if interval else ""


def _difference(row: Row, digits: int) -> str:
    if row.difference is None:
        return ""
    return f"{row.difference:+.{digits}f} {_interval(row.difference_interval, digits, '+')}".rstrip()


def _p(row: Row) -> str:
    if row.p_corrected is None:
        return ""
    text = "<0.001" if row.p_corrected < 0.001 else f"{row.p_corrected:.3f}"
    return text + " *" * row.significant


def _cost(values: Sequence[float], ratios: Sequence[float | None], units: Sequence[tuple[float, str]]) -> list[str]:
    """Values in one unit, with their ratio to the baseline's."""
    ratios = ratios if len(values) > 1 else [None]
    return [
        text if ratio is None or not text else f"{text} ×{ratio:.2f}"
        for text, ratio in zip(in_one_unit(values, units), ratios, strict=True)
    ]


def in_one_unit(values: Sequence[float], units: Sequence[tuple[float, str]]) -> list[str]:
    """Values in the unit that suits the largest; empty where there is none."""
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    size, unit = next((one for one in units if largest >= one[0]), units[-1])
    digits = 2 if largest < 10 * size else 1
    return ["" if math.isnan(value) else f"{value / size:.{digits}f} {unit}" for value in values]


def show(console: Console, comparison: Comparison, rows: Sequence[Row]) -> None:
    """Print the table: a narrow terminal gets fewer columns; where nobody looks at the width, nothing is cut off."""
    label, *others = columns(rows)
    longest = max(map(len, label.cells))
    if not console.is_terminal:
        console.width = max(longest + _width(others), console.width)
    shown = _fitting(others, console.width - min(longest, LEAST_LABEL))
    room = min(longest, console.width - _width(shown))
    word = max(len(word) for cell in label.cells for word in cell.split())
    stacked = longest > 2 * room or word > room  # then labels get lines of their own
    if stacked:
        shown, room = _fitting(others, console.width), 0
    console.print(Text(printable(title(comparison))), style="bold")
    padded = [column.lines() for column in shown]
    console.print(Text("  ".join([" " * room, *(lines[0] for lines in padded)]).rstrip()), style="bold", soft_wrap=True)
    for number, row in enumerate(rows):
        strong = "bold" if row.significant else ""
        lines = textwrap.wrap(label.cells[number], room or console.width, break_on_hyphens=False)
        lines += [""] * stacked
        for place, line in enumerate(lines):
            text = Text().append(line.ljust(room), strong)
            if place == (len(lines) - 1 if stacked else 0):
                for column, cells in zip(shown, padded, strict=True):
                    text.append("  ").append(cells[number + 1], strong if column.marked else "")
            text.rstrip()
            console.print(text, soft_wrap=True)
    if said := legend(rows):
        console.print(Text(said), style="dim")


def _fitting(found: Sequence[Column], width: int) -> list[Column]:
    """The columns without the least important ones that do not fit."""
    left = list(found)
    for name in DROPPED:
        if _width(left) > width:
            left = [column for column in left if column.name != name]
    return left


def _width(found: Sequence[Column]) -> int:
    return sum(2 + max(map(len, [column.heading, *column.cells])) for column in found)
