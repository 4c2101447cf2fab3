"""Methods that were tried on several data sets, by their ranks: numbers of different data are never subtracted.

Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import permutations

import numpy as np
from rich.console import Console
from rich.text import Text
from scipy.stats import rankdata, studentized_range

from recipes.compare.csv_files import csv_text
from recipes.compare.groups import Comparison
from recipes.compare.rulers import measured_alike
from recipes.compare.statistics import Row
from recipes.compare.table import Column
from recipes.config.errors import printable

DRAWS = 20_000  # orders of the ranks that are looked at: all, where there are no more
LEVEL = 0.05


@dataclass(frozen=True)
class Standing:
    """A method's rank on each data set, in their order, and the mean of these: 1 is the best; equal means share a rank."""

    label: str
    ranks: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean rank."""
        return float(np.mean(self.ranks))


def is_measured(comparison: Comparison) -> bool:
    """Whether a data set has ranks: a run on it has the metric, or all have diverged."""
    runs = comparison.runs
    return any(comparison.metric in run.metrics for run in runs) or all(run.status == "diverged" for run in runs)


def standings(found: Sequence[tuple[Comparison, Sequence[Row]]]) -> tuple[list[Standing], list[str]]:
    """The methods that every data set has, the best mean rank first, ranked among themselves; and the labels of the others.

    A group without a mean, one of whose runs has diverged, comes last. One that was not measured, or not as the baseline is, as by another
    loss or under another attack, has no rank. One data set makes none.

    Args:
        found: of the data sets that are measured.
    """
    if len(found) < 2:
        return [], []
    means = [
        {
            row.label: row.mean
            for row in rows
            if all(run.status == "diverged" or of.metric in run.metrics for run in row.group.runs)
            and measured_alike(row.group, of.baseline, of.metric)
        }
        for of, rows in found
    ]
    everywhere = [label for label in means[0] if all(label in of for of in means)]
    others = [label for label in dict.fromkeys(row.label for _, rows in found for row in rows) if label not in everywhere]
    if len(everywhere) < 2:
        return [], others
    columns = []
    for (comparison, _), of in zip(found, means, strict=True):
        sign = -1.0 if comparison.larger else 1.0
        columns.append(rankdata([math.inf if math.isnan(of[label]) else sign * of[label] for label in everywhere]))
    ranked = [Standing(label, tuple(map(float, ranks))) for label, *ranks in zip(everywhere, *columns, strict=True)]
    return sorted(ranked, key=lambda standing: standing.mean), others


def friedman(found: Sequence[Standing]) -> float:
    """How often ranks would differ as much, or more, if no method were better: each order of a data set's ranks is as likely then.

    The statistic is that of Friedman (1937), Σ_j (mean rank of method j)². Its distribution is the exact one where the orders of all data
    sets are 20,000 at most, else that of so many, drawn with a fixed seed; of two methods it is the sign test.
    """
    ranks = np.array([standing.ranks for standing in found]).T  # (data sets, methods)
    sets, methods = ranks.shape
    if math.factorial(methods) ** (sets - 1) <= DRAWS:  # the order on one of them makes no difference
        sums = ranks[:1]
        for row in ranks[1:]:
            sums = (sums[:, None] + np.array([*permutations(row)])).reshape(-1, methods)
        as_seen = 0
    else:
        random = np.random.default_rng(0)
        sums = sum(random.permuted(np.tile(row, (DRAWS, 1)), axis=1) for row in ranks)
        as_seen = 1
    large = (sums**2).sum(1) >= (ranks.sum(0) ** 2).sum() - 1e-6
    return float((large.sum() + as_seen) / (len(sums) + as_seen))


def critical_difference(methods: int, sets: int) -> float:
    """By how much two mean ranks must differ to be told from chance among all pairs, at 5 % (Nemenyi, 1963; Demšar, 2006)."""
    quantile = studentized_range.ppf(1 - LEVEL, methods, np.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(methods * (methods + 1) / (6 * sets)))


def columns(found: Sequence[Standing], data: Sequence[str]) -> list[Column]:
    """The table: a row a method, its mean rank and that on each data set."""
    ranks = [Column(name, name, [f"{standing.ranks[place]:g}" for standing in found]) for place, name in enumerate(data)]
    means = Column("rank", "mean rank", [f"{standing.mean:.2f}" for standing in found])
    return [Column("label", "", [standing.label for standing in found]), means, *ranks]


def told(found: Sequence[Standing], others: Sequence[str], data: Sequence[str], without: Sequence[str] = ()) -> list[str]:
    """What must be known of the ranks; `without`: data sets that have none, as no run on them has the metric."""
    left_out = [f"Left out of the ranks, as no run there has the metric: {_listed(without)}."] * bool(without)
    if len(data) < 2:
        return [*left_out, "There are no two data sets with the metric, so there is no mean rank."]
    if not found:
        return [
            *left_out,
            f"No two groups are on all {len(data)} data sets and measured alike there, so there is no mean rank.",
        ]
    lines = [f"Mean rank over {len(data)} data sets, 1 is the best; by how much a group is better stands in the table of each."]
    p = friedman(found)
    lines.append(
        f"Friedman's test: {f'p = {p:.3f}' if p >= 0.001 else 'p < 0.001'} that ranks differ so much by chance; mean ranks that are less than "
        f"{critical_difference(len(found), len(data)):.2f} apart may be so by chance (Nemenyi, 5 %)."
    )
    if others:
        lines.append(
            f"Without a rank, as they are not on every data set, or without the metric, or not measured as the baseline is: {_listed(others)}."
        )
    return lines + left_out


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def show(
    console: Console, found: Sequence[Standing], others: Sequence[str], data: Sequence[str], without: Sequence[str] = ()
) -> None:
    """Print it."""
    console.print(Text("all data"), style="bold")
    for line in told(found, others, data, without):
        console.print(printable(line), soft_wrap=True, markup=False)
    if found:
        for place, cells in enumerate(zip(*(column.lines() for column in columns(found, data)), strict=True)):
            console.print(Text(printable("  ".join(cells).rstrip())), style="bold" if place == 0 else "", soft_wrap=True)


def to_csv(found: Sequence[Standing], data: Sequence[str], without: Sequence[str] = ()) -> str:
    """The same as csv; the data `without` ranks have empty columns, as its header names all that were compared."""
    names, none = ["label", "mean_rank", *data, *without], [""] * len(without)
    rows = [dict(zip(names, (each.label, each.mean, *each.ranks, *none), strict=True)) for each in found]
    return csv_text(names, rows)


def to_markdown(found: Sequence[Standing], others: Sequence[str], data: Sequence[str], without: Sequence[str] = ()) -> str:
    """The same as markdown."""
    lines = [*told(found, others, data, without), ""]
    if found:
        table = columns(found, [name.replace("|", "\\|") for name in data])
        lines.append("| " + " | ".join(column.heading for column in table) + " |")
        lines.append("|---|" + "--:|" * (len(table) - 1))
        for place in range(len(found)):
            label, *cells = (column.cells[place] for column in table)
            lines.append("| `" + label.replace("|", "\\|") + "` | " + " | ".join(cells) + " |")
    return "\n".join(lines).rstrip() + "\n"


def section(found: Sequence[Standing], others: Sequence[str], data: Sequence[str], without: Sequence[str] = ()) -> str:
    """The same for a report's page, as HTML."""
    hints = "".join(f'<p class="hint">{escape(line)}</p>' for line in told(found, others, data, without))
    if not found:
        return hints
    table = columns(found, data)
    head = "".join(f'<th scope="col">{escape(column.heading)}</th>' for column in table)
    body = ""
    for place, standing in enumerate(found):
        cells = "".join(f"<td>{escape(column.cells[place])}</td>" for column in table[1:])
        body += f'<tr><th scope="row"><code>{escape(standing.label)}</code></th>{cells}</tr>'
    return f'<div class="scroll"><table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{hints}'
