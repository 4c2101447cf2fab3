"""The comparison as a table: on the terminal, as csv, markdown and LaTeX. Nothing here imports torch."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from plugins.errors import RecipeError
from recipes.compare.runs import Comparison, Run
from recipes.compare.statistics import SIGNIFICANT, Row
from recipes.config.errors import printable, to_cell
from recipes.config.spelling import suggest

TIMES = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
SIZES = ((1e9, "GB"), (1e6, "MB"))
DIGITS, MOST_DIGITS = 4, 8  # behind the point
LEAST_LABEL = 24  # letters of a label in one line before columns are dropped for it
DROPPED = ("memory", "interval", "time")  # in this order where the terminal is narrow
RESULTS = (
    *("seconds", "peak_memory", "samples_per_second", "steps", "epochs", "best_step", "parameters", "monitor"),
    *("devices", "nodes", "samples_per_step"),
)

# one column each of compare.csv, which --sort knows too
VALUES: dict[str, Callable[[Row], Any]] = {
    "label": lambda row: row.label,
    "baseline": lambda row: row.baseline,
    "n": lambda row: row.n,
    "mean": lambda row: row.mean,
    "deviation": lambda row: row.deviation,
    "interval_low": lambda row: row.interval and row.interval[0],
    "interval_high": lambda row: row.interval and row.interval[1],
    "pairs": lambda row: row.pairs,
    "difference": lambda row: row.difference,
    "difference_low": lambda row: row.difference_interval and row.difference_interval[0],
    "difference_high": lambda row: row.difference_interval and row.difference_interval[1],
    "p": lambda row: row.p,
    "p_corrected": lambda row: row.p_corrected,
    "seconds": lambda row: row.seconds,
    "seconds_ratio": lambda row: row.seconds_ratio,
    "memory": lambda row: row.memory,
    "memory_ratio": lambda row: row.memory_ratio,
}
OF_THE_METRIC = ("mean", "interval_low", "interval_high", "difference", "difference_low", "difference_high")


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


def to_csv(rows: Sequence[Row], data: Sequence[str] = ()) -> str:
    """All columns in full precision; empty where there is no value. `data`: the data set of each row, where there are several."""
    values = [{name: value(row) for name, value in VALUES.items()} for row in rows]
    told = [{"data": name} for name in data] or [{}] * len(rows)
    return csv_text([*VALUES, *["data"] * bool(data)], [row | more for row, more in zip(values, told, strict=True)])


def runs_csv(rows: Sequence[Row], differing: Sequence[str], data: Sequence[str] = ()) -> str:
    """A row for each finished run: its group, seed and folder, all metrics, the cost, and the config where groups differ.

    `data`: the data set of each group, where there are several.
    """
    of = dict(zip(map(id, rows), data, strict=True)) if data else {}
    runs = [(of.get(id(row)), row.label, run) for row in rows for run in row.group.runs]
    metrics = list(dict.fromkeys(name for *_, run in runs for name in run.metrics))
    names = [
        "label",
        "seed",
        "folder",
        *["data"] * bool(data),
        *metrics,
        *RESULTS,
        "torch",
        "git_commit",
        "machine",
        *differing,
    ]
    return csv_text(names, [_facts(label, run, metrics, differing) | {"data": where} for where, label, run in runs])


def _facts(label: str, run: Run, metrics: Sequence[str], differing: Sequence[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {name: run.values.get(name) for name in differing}
    facts |= {name: run.result.get(name) for name in (*RESULTS, "git_commit", "machine")}
    facts |= {"torch": (run.result.get("versions") or {}).get("torch")}
    facts |= {name: run.metrics.get(name) for name in metrics}
    return facts | {"label": label, "seed": run.seed, "folder": run.folder}


def csv_text(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """Rows as csv, under the names of their columns."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    cells = [names, *([row.get(name) for name in names] for row in rows)]
    writer.writerows([to_cell(printable(str(cell)) if isinstance(cell, str | Path) else cell) for cell in row] for row in cells)
    return file.getvalue()


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
    as four digits go; more only where half of the deviations need them.
    """
    deviations = sorted(row.deviation for row in rows if row.deviation and row.interval)
    if not deviations:
        return DIGITS
    means = [abs(row.mean) for row in rows if row.mean and math.isfinite(row.mean)]
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


def to_markdown(comparison: Comparison, rows: Sequence[Row]) -> str:
    """The table and the notes below it."""
    found = columns(rows)
    lines = [title(comparison), ""]
    lines.append("| " + " | ".join(column.heading for column in found) + " |")
    lines.append("|" + "|".join("---" if column.left else "--:" for column in found) + "|")
    for number, row in enumerate(rows):
        cells = [column.cells[number] for column in found]
        cells[0] = "`" + row.label.replace("|", "\\|") + "`" + cells[0][len(row.label) :]
        for place, column in enumerate(found):
            if row.significant and column.marked:
                cells[place] = "**" + cells[place].replace("*", "\\*") + "**"
        lines.append("| " + " | ".join(cells) + " |")
    if said := legend(rows):
        lines += ["", said.replace("*", "\\*")]
    lines += ["", *(f"- {note.translate(MARKDOWN)}" for note in comparison.notes)]
    return "\n".join(lines).rstrip() + "\n"


MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_<>[]|"})
LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    | {"±": r"$\pm$", "×": r"$\times$", "−": "$-$", "…": r"\ldots{}", "·": r"$\cdot$", "≥": r"$\geq$", "≤": r"$\leq$"}
)


def to_latex(comparison: Comparison, rows: Sequence[Row]) -> str:
    r"""A tabular for `\input`; needs the package booktabs."""
    found = columns(rows)
    said = "; ".join(filter(None, [title(comparison), legend(rows)]))
    lines = [f"% {said}", "% needs \\usepackage{booktabs}"]
    lines += [f"% {note}" for note in comparison.notes]
    lines += [r"\begin{tabular}{" + "".join("l" if column.left else "r" for column in found) + "}", r"\toprule"]
    lines += [" & ".join(column.heading.translate(LATEX) for column in found) + r" \\", r"\midrule"]
    for number, row in enumerate(rows):
        cells = []
        for column in found:
            text = column.cells[number].translate(LATEX)
            if column.name == "label":
                text = r"\texttt{" + row.label.translate(LATEX) + "}" + text[len(row.label.translate(LATEX)) :]
            else:
                text = text.replace("-", "$-$")
            if row.significant and column.marked:
                text = r"\textbf{" + text + "}"
            cells.append(text)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
