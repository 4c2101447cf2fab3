"""What a run's test has counted, `test.json` in its folder: how sure it was, labels, residuals. Nothing here imports torch.

By the name of each target, "" for the only one, a mapping with its `kind` and

- of a classification `places`, the shape of a sample's labels, and, where the loss trains probabilities, `reliability`;
- of several labels (multilabel) `labels`, `threshold`, `counts`, of each label true negatives, false positives, false negatives, true
  positives, and `reliability`;
- of numbers (regression) `levels` of quantiles, and `columns`, of each number its `range`, half the width `residual` of the residuals' scale, the tables
  `predicted_true` and `residual_predicted` (rows, columns), whose first and last row and column lie beyond the range, and how many targets are at
  or `below` each quantile; where there are several and not the median, the number of `samples` in the place of scale and tables.

`reliability` has for bins of equal width the number of `samples`, of those that were `right`, and the `sums` of their probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugins.errors import RecipeError
from recipes.config.kinds import is_count, is_mapping, is_number, is_texts
from recipes.config.run_files import TEST
from recipes.config.untrusted import LARGEST_RECORD, read_json
from recipes.store.files import write_text
from recipes.store.folder import write_confusion
from recipes.store.shapes import expect_known

if TYPE_CHECKING:
    from plugins.base import Task

VERSION = 1
LONGEST = 1000  # numbers in a list, such as bins, labels, columns


def write_test(
    folder: Path, tasks: Iterable[Task], matrices: Mapping[str, list[list[int]]], counted: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """`confusion.json` and `test.json`; what they hold together, by task."""
    confusion = write_confusion(folder, tasks, matrices)
    write_tested(folder, counted)
    return {name: {**counted.get(name, {}), **confusion.get(name, {})} for name in {**confusion, **counted}}


def write_tested(folder: Path, tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """Write it; nothing where nothing was counted."""
    if tasks:
        write_text(
            folder / TEST, json.dumps({"format": VERSION, "tasks": tasks}, separators=(",", ":"), allow_nan=False) + "\n"
        )


def read_tested(folder: Path) -> dict[str, dict[str, Any]]:
    """What was counted, by task.

    Raises:
        FileNotFoundError: there is none.
        RecipeError: it is not what a run writes.
    """
    path = folder / TEST
    content = read_json(path, LARGEST_RECORD)
    expect_known(path, content.get("format"))
    tasks = content.get("tasks")
    for name, entry in tasks.items() if isinstance(tasks, Mapping) else [("", None)]:
        kind = entry.get("kind") if isinstance(entry, Mapping) else None
        if not isinstance(kind, str) or kind not in KINDS or not KINDS[kind](entry):  # type: ignore[arg-type]
            raise RecipeError(f"{path} cannot be read: expected counts of a test{f' for {name}' if name else ''}")
    return tasks  # type: ignore[return-value]


def _is_reliability(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    samples, right, sums = (value.get(name) for name in ("samples", "right", "sums"))
    return _are_counts(samples) and _are_counts(right, samples) and _are_numbers(sums, samples)


def _are_counts(value: object, like: object = None) -> bool:
    """Whole numbers from 0 on, as many as in another list."""
    fits = isinstance(value, list) and 0 < len(value) <= LONGEST and (like is None or len(value) == len(like))  # type: ignore[arg-type]
    return fits and all(is_count(each) and each >= 0 for each in value)  # type: ignore[attr-defined]


def _are_numbers(value: object, like: object) -> bool:
    return isinstance(value, list) and len(value) == len(like) and all(map(is_number, value))  # type: ignore[arg-type]


def _of_classes(entry: Mapping[str, Any]) -> bool:
    places = entry.get("places")
    known = isinstance(places, list) and len(places) <= LONGEST and all(map(is_count, places))
    return known and ("reliability" not in entry or _is_reliability(entry["reliability"]))


def _of_labels(entry: Mapping[str, Any]) -> bool:
    labels, counts = entry.get("labels"), entry.get("counts")
    if not is_texts(labels) or not isinstance(counts, list) or not 0 < len(counts) == len(labels or ()):
        return False
    return (
        all(_are_counts(each, range(4)) for each in counts)
        and is_number(entry.get("threshold"))
        and _is_reliability(entry.get("reliability"))
    )


def _of_numbers(entry: Mapping[str, Any]) -> bool:
    levels, columns = entry.get("levels"), entry.get("columns")
    if not isinstance(levels, list) or len(levels) > LONGEST or not all(is_number(level) and 0 < level < 1 for level in levels):
        return False
    return isinstance(columns, list) and 0 < len(columns) <= LONGEST and all(_is_column(each, levels) for each in columns)


def _is_column(column: object, levels: list[float]) -> bool:
    if not is_mapping(column):
        return False
    assert isinstance(column, Mapping)
    ends, width, below = column.get("range"), column.get("residual"), column.get("below")
    if not _are_numbers(ends, range(2)) or not ends[0] < ends[1]:  # type: ignore[index]
        return False
    if not (below == [] and not levels) and not _are_counts(below, levels):
        return False
    if "samples" in column:
        return bool(levels) and column.keys() == {"range", "samples", "below"} and _are_counts([column["samples"]])
    if not is_number(width) or not width > 0:  # type: ignore[operator]
        return False
    first, second = column.get("predicted_true"), column.get("residual_predicted")
    return _is_table(first) and _is_table(second, len(first))  # type: ignore[arg-type]


def _is_table(value: object, size: int | None = None) -> bool:
    """Counts, in as many rows as columns, three at least, and as many as another table has."""
    if not isinstance(value, list) or not 3 <= len(value) <= LONGEST or (size is not None and len(value) != size):
        return False
    return all(_are_counts(row, value) for row in value)


KINDS = {"classification": _of_classes, "multilabel": _of_labels, "regression": _of_numbers}
