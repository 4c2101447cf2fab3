"""The comparison as csv files. Nothing here imports torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recipes.compare.runs import Run
from recipes.compare.statistics import Row
from recipes.config.errors import printable, to_cell

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


def to_csv(rows: Sequence[Row], data: Sequence[str] = ()) -> str:
    """All columns in full precision; empty where there is no value. `data`: the data set of each row, where there are several."""
    values = [{name: value(row) for name, value in VALUES.items()} for row in rows]
    told = [{"data": name} for name in data] or [{}] * len(rows)
    return csv_text([*VALUES, *["data"] * bool(data)], [row | more for row, more in zip(values, told, strict=True)])


def runs_csv(rows: Sequence[Row], differing: Sequence[str], data: Sequence[str] = ()) -> str:
    """A row for each finished run: its group, seed, fold where there are folds, and folder, all metrics, the cost, and the config where groups differ.

    `data`: the data set of each group, where there are several.
    """
    of = dict(zip(map(id, rows), data, strict=True)) if data else {}
    runs = [(of.get(id(row)), row.label, run) for row in rows for run in row.group.runs]
    metrics = list(dict.fromkeys(name for *_, run in runs for name in run.metrics))
    names = [
        "label",
        "seed",
        *["fold"] * any(run.folds for *_, run in runs),
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
    fold = {"fold": run.replicate[1]} if run.folds else {}
    return facts | {"label": label, "seed": run.seed, "folder": run.folder, **fold}


def csv_text(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """Rows as csv, under the names of their columns."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    cells = [names, *([row.get(name) for name in names] for row in rows)]
    writer.writerows([to_cell(printable(str(cell)) if isinstance(cell, str | Path) else cell) for cell in row] for row in cells)
    return file.getvalue()
