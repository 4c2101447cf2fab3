"""Several finished runs are tested, or one with several values: in one table, and as a picture where one number varies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recipes.compare.over_values import write_over_values
from recipes.compare.rulers import differing
from recipes.compare.runs import Run
from recipes.config.errors import printable
from recipes.run.evaluate import measure
from recipes.run.terminal import ORDER, print_lines

Job = tuple[Path, dict[str, Any], list[str], dict[str, str]]  # folder, config, words, and of these what varies, by key
Result = Mapping[str, Any]


def evaluate_each(jobs: Sequence[Job]) -> list[Result]:
    """Test each run with each value, and print one table; draw what changes over the numbers of the only key that varies."""
    results: list[Result] = [{**measure(*job[:3]), "values": job[3]} for job in jobs]
    notes = {name: alike for name in _names(results) if (alike := _apart(name, results))}
    names = [name for name in _names(results) if name not in notes]
    console = Console()
    console.print(_table(results, names))
    folders = list(dict.fromkeys(result["folder"] for result in results))
    lines = [
        f"not compared: {alike}" + "; give all the same, such as +adversarial=pgd" * ("adversarial" in alike)
        for alike in notes.values()
    ]
    if picture := _draw(results, names, Path(folders[0])):
        lines.append(f"picture  {picture}")
    for folder in folders:
        first = next(result for result in results if result["folder"] == folder)
        lines += [f"samples  {first['samples']:,}: {first['which']}", f"folder   {folder}"]
    print_lines(console, *lines)
    return results


def _names(results: Sequence[Result]) -> list[str]:
    found = dict.fromkeys(name for result in results for name in result["metrics"])
    known = [f"test/{name}" for name in ORDER]
    return sorted(found, key=lambda name: (known.index(name) if name in known else len(known), name))


def _apart(name: str, results: Sequence[Result]) -> str:
    """In what runs differ that have measured a metric in different ways though they were given the same values; empty: in nothing."""
    runs: dict[tuple[str, ...], list[Run]] = {}
    for result in results:
        if name in result["metrics"]:
            rulers = {"loss": result["config"]["loss"], **result["rulers"]}
            run = Run(Path(result["folder"]), "finished", {**result, "rulers": rulers})
            runs.setdefault(tuple(result["values"].values()), []).append(run)
    return next(filter(None, (differing(name, several) for several in runs.values())), "")


def _table(results: Sequence[Result], names: Sequence[str]) -> Table:
    """A row an evaluation: the run, the values that vary, the metrics."""
    keys = list(results[0]["values"])
    several = len({result["folder"] for result in results}) > 1
    shown = Table(header_style="bold")
    if several:
        shown.add_column("run", overflow="fold")
    for heading in [*keys, *(printable(name.partition("/")[2]) for name in names)]:
        shown.add_column(Text(heading), justify="right", no_wrap=True)
    for result in results:
        own = [printable(result["folder"])] * several + [result["values"][key] for key in keys]
        metrics = [result["metrics"].get(name) for name in names]
        shown.add_row(*map(Text, own), *("" if value is None else f"{value:.4f}" for value in metrics))
    return shown


def _draw(results: Sequence[Result], names: Sequence[str], folder: Path) -> Path | None:
    """The picture's place; None where there is nothing to draw."""
    keys = list(results[0]["values"])
    texts = list(dict.fromkeys(result["values"][keys[0]] for result in results)) if len(keys) == 1 else []
    values = [number for text in texts if math.isfinite(number := _number(text))]
    if len(values) < 2 or len(values) < len(texts):
        return None
    lines = {}
    for name in names:
        runs: dict[str, list[float]] = {}
        for result in results:
            runs.setdefault(result["folder"], []).append(result["metrics"].get(name, math.nan))
        if any(len(set(numbers)) > 1 for numbers in runs.values()):
            lines[name] = runs
    if not lines:
        return None
    path = folder / f"{keys[0]}.png"
    write_over_values(keys[0], values, lines, path)
    return path


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
