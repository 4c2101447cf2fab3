"""metrics.csv and histograms.csv, written by every run."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from recipes.config.errors import to_cell
from recipes.config.run_files import HISTOGRAMS, METRICS
from recipes.engine.logger import RunLogger
from recipes.engine.metrics import Histogram
from recipes.store.files import open_to_append, unwritable, write_text
from recipes.store.shapes import histograms_of, numbers_of

COLUMNS = ("step", "name", "low", "high", "counts")  # of histograms.csv


class CsvRunLogger(RunLogger):
    """`metrics.csv` and `histograms.csv` in the run's folder.

    One row for each logged step, one column a number; and one row for each histogram, with the counts of its bins.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.path, self.histograms = folder / METRICS, folder / HISTOGRAMS
        self.rows: list[dict[str, str]] = []
        self.columns: list[str] = ["step"]
        self._complete = False  # whether the file has all rows and columns, so that a row can be appended
        self._has_histograms = False  # whether there is a file of this run, so that rows can be appended

    @property
    def name(self) -> str:
        """Lightning wants one."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning wants one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row; a new column means writing the file anew."""
        row = {"step": str(step or 0)} | {name: repr(float(value)) for name, value in metrics.items()}
        new = [name for name in row if name not in self.columns]
        self.columns += new
        same = bool(self.rows) and self.rows[-1]["step"] == row["step"]
        if same:
            self.rows[-1] |= row
        else:
            self.rows.append(row)
        if same or new or not self._complete:
            self._write()
            return
        append(self.path, as_csv([[row.get(name, "") for name in self.columns]]))

    def _write(self) -> None:
        rows = [[row.get(name, "") for name in self.columns] for row in self.rows]
        write_text(self.path, as_csv([self.columns, *rows]))
        self._complete = True

    @rank_zero_only
    def log_histograms(self, histograms: Mapping[str, Histogram], step: int) -> None:
        """Write a row for each histogram."""
        read = {name: histogram.read() for name, histogram in histograms.items()}
        rows = as_csv([step, name, *row_of(numbers)] for name, numbers in read.items() if numbers is not None)
        if self._has_histograms:
            append(self.histograms, rows)
        elif rows:
            write_text(self.histograms, as_csv([COLUMNS]) + rows)
            self._has_histograms = True

    @rank_zero_only
    def rewind(self, step: int, logged: Collection[str] | None = None) -> None:
        """Keep the rows up to `step`, without what the end of a run that goes on has added."""
        if self.path.exists():
            self.columns, self.rows = rows_until(self.path, step, logged)
            self._write()
        if self.histograms.exists():
            kept = [(at, name, *row_of(numbers)) for at, name, numbers in histograms_until(self.path.parent, step)]
            write_text(self.histograms, as_csv([COLUMNS, *kept]))
            self._has_histograms = True


def rows_until(path: Path, step: int, logged: Collection[str] | None = None) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of `metrics.csv` up to a step, without the test at the end of a run that goes on.

    The row of the step itself has only the names in `logged`, where these are known: a run that ended there validated once more.
    """
    names, rows = dict[str, None](), []
    for row in numbers_of(path):
        names |= dict.fromkeys(row)
        at = int(row["step"])
        kept = {
            name: value
            for name, value in row.items()
            if value and not name.startswith("test/") and (name == "step" or at < step or logged is None or name in logged)
        }
        if at <= step and len(kept) > 1:
            rows.append(kept)
    there = {name for row in rows for name in row}
    return ["step", *(name for name in names if name in there and name != "step")], rows


def numbers_until(folder: Path, step: int, logged: Collection[str] | None = None) -> Iterator[tuple[int, dict[str, float]]]:
    """Steps and their numbers in `metrics.csv`, as :func:`rows_until`, for a logger that is to have them again."""
    if (path := folder / METRICS).exists():
        for row in rows_until(path, step, logged)[1]:
            yield int(row["step"]), {name: float(value) for name, value in row.items() if name != "step"}


def histograms_until(folder: Path, step: int) -> Iterator[tuple[int, str, tuple[float, float, list[int]]]]:
    """Step, name, and ends and counts of each histogram in `histograms.csv` up to a step."""
    if (path := folder / HISTOGRAMS).exists():
        yield from ((at, name, (low, high, counts)) for at, name, low, high, counts in histograms_of(path) if at <= step)


def row_of(histogram: Sequence[Any]) -> tuple[str, str, str]:
    """The two ends and the counts as they are written."""
    low, high, counts = histogram
    return repr(low), repr(high), " ".join(map(str, counts))


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as text."""
    text = io.StringIO()
    csv.writer(text).writerows([to_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def append(path: Path, text: str) -> None:
    """Write behind what is there."""
    try:
        with open_to_append(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise unwritable(path, error) from None
