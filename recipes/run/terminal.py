"""What a run prints at its end: its table, and lines that can be copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recipes.config.errors import printable
from recipes.config.invoked import as_typed

ORDER = ("loss", "acc")


def table(result: Mapping[str, Any]) -> Table:
    """The metrics of a run: one row a metric, one column a split."""
    metrics = result["metrics"]
    splits = [split for split in ("train", "val", "test") if any(name.startswith(split + "/") for name in metrics)]
    names = list(dict.fromkeys(name.partition("/")[2] for name in metrics if name.partition("/")[0] in splits))
    names.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    shown = Table(title=None, header_style="bold")
    shown.add_column("metric")
    for split in splits:
        shown.add_column(split, justify="right")
    for name in names:
        cells = [metrics.get(f"{split}/{name}") for split in splits]
        shown.add_row(Text(printable(name)), *("" if cell is None else f"{cell:.4f}" for cell in cells))
    return shown


def print_lines(console: Console, *lines: str) -> None:
    """Print without wrapping or markup, so that paths and commands can be copied."""
    for line in lines:
        console.print(as_typed(printable(line)), soft_wrap=True, markup=False, highlight=False)
