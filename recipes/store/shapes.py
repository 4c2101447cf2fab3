"""What must stand in the files that runs leave, of which type: whoever reads one need not doubt it. Nothing here imports torch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config.errors import from_cell, printable
from recipes.config.kinds import is_count, is_counts, is_flag, is_mapping, is_number, is_numbers, is_text, is_texts
from recipes.config.moved import renew
from recipes.config.run_files import CONFUSION, HISTOGRAMS, METRICS, RESULT
from recipes.config.untrusted import LARGEST_RECORD, read_json, read_text
from recipes.store.phase_results import is_phases


def is_rulers(value: object) -> bool:
    """Mappings by name."""
    return is_mapping(value) and all(map(is_mapping, value.values()))  # type: ignore[attr-defined]


def is_directions(value: object) -> bool:
    """Max or min by name."""
    return isinstance(value, Mapping) and all(is_text(name) and mode in ("max", "min") for name, mode in value.items())


def is_history(value: object) -> bool:
    """A list of what held from which step on."""
    if not isinstance(value, list) or not all(map(_is_entry, value)):
        return False
    steps = [each["step"] for each in value]
    return not value or (steps[0] == 0 and all(first < second for first, second in pairwise(steps)))


def _is_entry(value: object) -> bool:
    if not isinstance(value, Mapping) or not is_count(value.get("step")) or not is_texts(value.get("command")):
        return False
    changed, versions, size = value.get("changed"), value.get("versions"), value.get("samples_per_step")
    pairs = isinstance(changed, Mapping) and all(isinstance(pair, list) and len(pair) == 2 for pair in changed.values())
    facts = all(value.get(name) is None or is_text(value[name]) for name in ("git_commit", "machine"))
    return pairs and facts and (versions is None or is_mapping(versions)) and (size is None or is_count(size))


def is_choices(value: object) -> bool:
    """The names of options by group."""
    return isinstance(value, Mapping) and all(map(is_texts, value.values()))


def is_tuned(value: object) -> bool:
    """What a finder has found for a key, by how many steps and seconds; or nothing."""
    if not isinstance(value, Mapping):
        return False
    kinds = {"key": is_text, "value": is_number, "steps": is_count, "seconds": is_number}
    return not value or (value.keys() == kinds.keys() and all(fits(value[name]) for name, fits in kinds.items()))


FORMAT = 1  # of a run's folder and a sweep's; another number where an older version would read one wrongly
# what stands in result.json, where it stands there; null wherever a run does not know
ENTRIES = dict.fromkeys(("status", "monitor", "error", "stopped_by", "ended_by", "git_commit", "machine", "slurm_job"), is_text)
ENTRIES |= dict.fromkeys(
    ("seed", "best_step", "steps", "phases", "devices", "nodes", "samples_per_step", "parameters"), is_count
)
ENTRIES |= dict.fromkeys(("epochs", "seconds", "samples_per_second", "peak_memory"), is_number)
ENTRIES |= {"config": is_mapping, "versions": is_mapping, "wandb": is_mapping, "metrics": is_numbers, "stopped_early": is_flag}
ENTRIES |= {"command": is_texts, "techniques": is_texts, "rulers": is_rulers, "directions": is_directions}
ENTRIES |= {"history": is_history, "choices": is_choices, "data_content": is_text}
ENTRIES |= {"phase_begins": is_counts, "phase_results": is_phases, "tuned": is_tuned, "pruned_at": is_count, "reason": is_text}
ENTRIES |= {"events": is_texts}
STATUSES = ("running", "finished", "diverged", "stopped", "failed", "pruned")
NEEDED = ("status", "config", "metrics", "command")  # never null


def expect_known(path: Path, version: object) -> None:
    """Refuse what a newer version of the project has written in another format; without a number it is of before there were any."""
    if is_number(version) and version > FORMAT:  # type: ignore[operator]
        raise RecipeError(
            f"{path} was written by a newer version, in format {version}; this one reads up to {FORMAT}: update it"
        )


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json` of a run folder; a metric is null where it is not a finite number.

    Raises:
        FileNotFoundError: there is none.
        RecipeError: it is not what a run writes.
    """
    path = folder / RESULT
    result = read_json(path, LARGEST_RECORD)
    expect_known(path, result.pop("format", None))
    for name, value in result.items():
        if name in ENTRIES and not ((value is None and name not in NEEDED) or ENTRIES[name](value)):
            words = (ENTRIES[name].__doc__ or "").rstrip(".").lower()
            raise RecipeError(f"{path} cannot be read: {name} must be {words}")
    if "status" in result and result["status"] not in STATUSES:
        raise RecipeError(f"{path} cannot be read: status must be one of {', '.join(STATUSES)}")
    seed = result.get("config", {}).get("seed", 0)
    if not is_count(seed):
        raise RecipeError(f"{path} cannot be read: config.seed must be a whole number")
    return {**result, "config": renew(result["config"])} if "config" in result else result


def rows_of(path: Path, columns: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """The rows of a csv file up to its last whole line, by column; half a line is what a killed process leaves.

    Raises:
        FileNotFoundError: it is not there.
        RecipeError: it cannot be read, or one of these columns is missing.
    """
    text = read_text(path, LARGEST_RECORD)
    try:
        lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))
        names = [printable(from_cell(name)) for name in next(lines, columns)]
        if missing := [name for name in columns if name not in names]:
            raise RecipeError(f"{path} cannot be read: it has no column {missing[0]}")
        for line in filter(None, lines):
            yield dict(zip(names, map(from_cell, line), strict=False))
    except csv.Error as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None


def numbers_of(path: Path) -> Iterator[dict[str, str]]:
    """The rows of `metrics.csv`: a number in each cell that is not empty, a step in each row.

    Raises:
        FileNotFoundError: it is not there.
        RecipeError: it is not what a run writes.
    """
    for number, row in enumerate(rows_of(path, ["step"]), 2):
        try:
            int(row["step"]), [float(text) for text in row.values() if text]
        except (ValueError, KeyError):
            raise RecipeError(f"{path} cannot be read: line {number} holds something else than numbers") from None
        yield row


def histograms_of(path: Path) -> Iterator[tuple[int, str, float, float, list[int]]]:
    """The rows of `histograms.csv`: step, name, the two ends, the counts of the bins.

    Raises:
        FileNotFoundError: it is not there.
        RecipeError: it is not what a run writes.
    """
    for number, row in enumerate(rows_of(path, ["step", "name", "low", "high", "counts"]), 2):
        try:
            low, high, counts = float(row["low"]), float(row["high"]), [int(count) for count in row["counts"].split()]
            step, name = int(row["step"]), printable(row["name"])
            if not (counts and name and math.isfinite(low) and math.isfinite(high) and low <= high and min(counts) >= 0):
                raise ValueError(number)
        except (ValueError, KeyError):
            raise RecipeError(f"{path} cannot be read: line {number} is no histogram") from None
        yield step, name, low, high, counts


def read_confusion(folder: Path) -> dict[str, tuple[list[str], list[list[int]]]]:
    """`confusion.json`: for each task its classes and how often a test sample of one (row) was taken for another (column).

    Raises:
        FileNotFoundError: there is none.
        RecipeError: it is not what a run writes.
    """
    path = folder / CONFUSION
    found: dict[str, tuple[list[str], list[list[int]]]] = {}
    tasks = read_json(path, LARGEST_RECORD).get("test")
    for task, entry in tasks.items() if isinstance(tasks, Mapping) else [("", None)]:
        classes, matrix = (entry.get("classes"), entry.get("matrix")) if isinstance(entry, Mapping) else (None, None)
        if not is_texts(classes) or not is_square(matrix, len(classes or ())):
            raise RecipeError(f"{path} cannot be read: expected classes and a square matrix of counts for each task")
        found[task] = (classes, matrix)  # type: ignore[assignment]
    return found


def is_square(matrix: object, size: int) -> bool:
    """Counts in as many rows as columns."""
    rows = matrix if isinstance(matrix, list) and len(matrix) == size > 0 else [None]
    return all(isinstance(row, list) and len(row) == size and all(map(is_count, row)) for row in rows)


def check_records(folder: Path) -> None:
    """Raise unless the numbers that a run has logged are there as it has written them, or not at all."""
    for name, rows in ((METRICS, numbers_of), (HISTOGRAMS, histograms_of)):
        with suppress(FileNotFoundError):
            for _ in rows(folder / name):
                pass
