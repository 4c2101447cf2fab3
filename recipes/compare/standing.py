"""Methods that were tried on several data sets, by their ranks: numbers of different data are never subtracted.

Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.text import Text
from scipy.stats import rankdata

from recipes.compare.csv_files import csv_text
from recipes.compare.groups import Comparison
from recipes.compare.statistics import Row
from recipes.compare.table import Column
from recipes.config.errors import printable


@dataclass(frozen=True)
class Standing:
    """A method's rank on each data set, in their order, and the mean of these: 1 is the best; equal means share a rank."""

    label: str
    ranks: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean rank."""
        return float(np.mean(self.ranks))


def standings(found: Sequence[tuple[Comparison, Sequence[Row]]]) -> tuple[list[Standing], list[str]]:
    """The methods that every data set has, the best mean rank first, ranked among themselves; and the labels of the others.

    A group without a mean, one of whose runs has diverged, comes last.
    """
    means = [{row.label: row.mean for row in rows} for _, rows in found]
    everywhere = [label for label in means[0] if all(label in of for of in means)]
    others = [label for label in dict.fromkeys(label for of in means for label in of) if label not in everywhere]
    if len(everywhere) < 2:
        return [], others
    columns = []
    for (comparison, _), of in zip(found, means, strict=True):
        sign = -1.0 if comparison.larger else 1.0
        columns.append(rankdata([math.inf if math.isnan(of[label]) else sign * of[label] for label in everywhere]))
    ranked = [Standing(label, tuple(map(float, ranks))) for label, *ranks in zip(everywhere, *columns, strict=True)]
    return sorted(ranked, key=lambda standing: standing.mean), others


def columns(found: Sequence[Standing], data: Sequence[str]) -> list[Column]:
    """The table: a row a method, its mean rank and that on each data set."""
    ranks = [Column(name, name, [f"{standing.ranks[place]:g}" for standing in found]) for place, name in enumerate(data)]
    means = Column("rank", "mean rank", [f"{standing.mean:.2f}" for standing in found])
    return [Column("label", "", [standing.label for standing in found]), means, *ranks]


def told(found: Sequence[Standing], others: Sequence[str], data: Sequence[str]) -> list[str]:
    """What must be known of the ranks."""
    if not found:
        return [f"No two groups are on all {len(data)} data sets, so there is no mean rank."]
    lines = [f"Mean rank over {len(data)} data sets, 1 is the best; by how much a group is better stands in the table of each."]
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        lines.append(f"Without a rank, as they are not on every data set: {shown}.")
    return lines


def show(console: Console, found: Sequence[Standing], others: Sequence[str], data: Sequence[str]) -> None:
    """Print it."""
    console.print(Text("all data"), style="bold")
    for line in told(found, others, data):
        console.print(printable(line), soft_wrap=True, markup=False)
    if found:
        for place, cells in enumerate(zip(*(column.lines() for column in columns(found, data)), strict=True)):
            console.print(Text(printable("  ".join(cells).rstrip())), style="bold" if place == 0 else "", soft_wrap=True)


def to_csv(found: Sequence[Standing], data: Sequence[str]) -> str:
    """The same as csv."""
    names = ["label", "mean_rank", *data]
    rows = [dict(zip(names, (each.label, each.mean, *each.ranks), strict=True)) for each in found]
    return csv_text(names, rows)


def to_markdown(found: Sequence[Standing], others: Sequence[str], data: Sequence[str]) -> str:
    """The same as markdown."""
    lines = [*told(found, others, data), ""]
    if found:
        table = columns(found, [name.replace("|", "\\|") for name in data])
        lines.append("| " + " | ".join(column.heading for column in table) + " |")
        lines.append("|---|" + "--:|" * (len(table) - 1))
        for place in range(len(found)):
            label, *cells = (column.cells[place] for column in table)
            lines.append("| `" + label.replace("|", "\\|") + "` | " + " | ".join(cells) + " |")
    return "\n".join(lines).rstrip() + "\n"
