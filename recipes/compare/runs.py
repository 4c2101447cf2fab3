"""Runs read back from their folders, and grouped into those that differ in nothing but the seed. Nothing here imports torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.choices import choices
from recipes.config.effect import flatten, has_effect, in_one_way
from recipes.config.errors import one_line, printable
from recipes.config.kinds import is_count, is_text
from recipes.config.older import completed
from recipes.config.places import check_files
from recipes.config.run_files import HISTOGRAMS, LOG, METRICS, RESULT
from recipes.config.untrusted import read_bytes
from recipes.store.files import is_held
from recipes.store.history import resumed
from recipes.store.shapes import histograms_of, read_confusion, read_result, rows_of
from recipes.store.tested import read_tested

RESUMED = "resumed"  # beside the keys of a config: what was changed on the way
LARGEST_PICTURE = 20_000_000  # bytes
Replicate = tuple[int, ...]  # seed, or seed and fold
BEHIND_LINKS = 10_000  # folders that are looked at behind links, which may lead anywhere


@dataclass(frozen=True)
class Run:
    """One run folder.

    `status` is finished, diverged, stopped, running or failed; interrupted where a process ended without a word, and broken where the
    result cannot be read.
    """

    folder: Path
    status: str
    result: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config."""
        return dict(self.result.get("config", {}))

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config.get("seed", 0))

    @property
    def data(self) -> Mapping[str, Any]:
        """The settings of its data; none where a result of somebody else has something else there."""
        found = self.config.get("data")
        return found if isinstance(found, Mapping) else {}

    @property
    def folds(self) -> int:
        """Into how many folds its data was cut; 0: into none, also where a class of one's own means something else by the word."""
        folds, *others = (self.data.get(name) or 0 for name in ("folds", "fold", "split_seed"))
        return folds if all(map(is_count, (folds, *others))) and folds > 1 else 0

    @property
    def cut(self) -> tuple[int, int]:
        """What tells its folds from others of the same data: how many they are, and the seed by which they were drawn."""
        return self.folds, int(self.data.get("split_seed") or 0) if self.folds else 0

    @property
    def forward(self) -> bool:
        """Whether its folds go forward in time: fold k is trained on the k + 1 pieces before the one that it is tested on."""
        return self.folds > 0 and is_text(self.data.get("time"))

    @property
    def replicate(self) -> Replicate:
        """What sets it apart from the other runs of one config: seed and fold, or the seed alone."""
        return (self.seed, int(self.data.get("fold") or 0)) if self.folds else (self.seed,)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of the best model; not a number where the result has null, and for a run that has diverged."""
        if self.status == "diverged":
            return dict.fromkeys(self.result.get("metrics", {}), math.nan)
        return {name: math.nan if value is None else float(value) for name, value in self.result.get("metrics", {}).items()}

    @property
    def error(self) -> str:
        """What went wrong, in one line."""
        return str(self.result.get("error") or self.result.get("stopped_by") or "")

    @cached_property
    def resumed(self) -> str:
        """What was changed on the way, so that this is no run of its config alone; empty where it is."""
        return in_one_line(resumed(self.result))

    @cached_property
    def values(self) -> dict[str, Any]:
        """The config as dotted keys, without what makes no difference to the training or was found for it; and what was changed on the way."""
        flat = flatten(in_one_way(self.config)) | ({RESUMED: self.resumed} if self.resumed else {})
        flat.pop(str((self.result.get("tuned") or {}).get("key")), None)
        left_out = ("data.path", "data.labels", *(["data.fold"] if self.folds else []))
        return {key: value for key, value in flat.items() if has_effect(key) and key not in left_out}

    @property
    def content(self) -> str | None:
        """A hash of its data, however that is split and wherever it lies; older runs have none."""
        return self.result.get("data_content")

    @property
    def stretches(self) -> list[Mapping[str, Any]]:
        """The facts (versions, source, machine) that held in it, one after the other; of a run without history, its own."""
        return [*(self.result.get("history") or []), self.result]

    @cached_property
    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """The columns of metrics.csv: for each name its steps and values, rows without it left out."""
        try:
            rows = list(rows_of(self.folder / METRICS))
        except (OSError, RecipeError):
            return {}
        found: dict[str, tuple[list[int], list[float]]] = {}
        for row in rows:
            for name, text in row.items():
                if name and text and name != "step" and row.get("step"):
                    try:
                        step, value = int(row["step"]), float(text)
                    except ValueError:
                        continue  # half a row, of a process that was killed
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(value)
        return found

    @property
    def begins(self) -> list[int]:
        """The steps after which its further phases began."""
        begun = self.result.get("phase_begins")
        return [step for step in begun[1:] if isinstance(step, int)] if isinstance(begun, list) else []

    @property
    def techniques(self) -> list[str]:
        """The names of the options that had a part in the run."""
        named = self.result.get("techniques")
        return [str(name) for name in named] if isinstance(named, list) else []

    @cached_property
    def confusion(self) -> dict[str, tuple[list[str], list[list[int]]]]:
        """For each task its classes and how often a test sample of one (row) was taken for another (column)."""
        try:
            return read_confusion(self.folder)
        except (OSError, RecipeError):
            return {}

    @cached_property
    def tested(self) -> dict[str, dict[str, Any]]:
        """What else its test has counted, by task."""
        try:
            return read_tested(self.folder)
        except (OSError, RecipeError):
            return {}

    @cached_property
    def histograms(self) -> dict[str, list[tuple[int, float, float, list[int]]]]:
        """For each name its histograms: the step, the lowest and the highest value, the counts of bins of equal width."""
        found: dict[str, list[tuple[int, float, float, list[int]]]] = {}
        with suppress(OSError, RecipeError):
            for step, name, low, high, counts in histograms_of(self.folder / HISTOGRAMS):
                found.setdefault(name, []).append((step, low, high, counts))
        return found

    @property
    def pictures(self) -> dict[str, Path]:
        """For each technique that drew one, the picture of what it does to a batch."""
        return {path.stem: path for path in sorted(self.folder.glob("pictures/*.png")) if is_whole_png(path)}


# Reading


def natural(path: Path) -> list[Any]:
    """A key that sorts job 10 behind job 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(path))]


def find(places: Iterable[Path]) -> list[Path]:
    """The run folders that these are, or that lie below them; raises where there is none."""
    found: dict[Path, Path] = {}
    for place in places:
        if not place.is_dir():
            raise RecipeError(f"there is no folder {place}")
        inside = sorted(below(place), key=natural)
        if not inside:
            raise RecipeError(f"{place} is no run and holds none: looked for result.json")
        for folder in inside:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def below(place: Path) -> Iterator[Path]:
    """The run folders at or below a place, also those that are links, or lie behind one; links behind links are left alone."""
    seen: set[str] = set()
    links = []
    for folder, inner, files in os.walk(place):
        seen.add(os.path.realpath(folder))
        links += [os.path.join(folder, name) for name in inner if os.path.islink(os.path.join(folder, name))]
        if _is_run(folder, inner, files):
            yield Path(folder)
    behind = 0
    for link in links:
        for folder, inner, files in os.walk(link):
            behind += 1
            if behind > BEHIND_LINKS:
                raise RecipeError(
                    f"there are more than {BEHIND_LINKS:,} folders behind links such as {link}: name folders of runs"
                )
            if (real := os.path.realpath(folder)) in seen:  # where the walk has been, or is
                inner.clear()
                continue
            seen.add(real)
            if _is_run(folder, inner, files):
                yield Path(folder)


def _is_run(folder: str, inner: list[str], files: list[str]) -> bool:
    """Whether a folder holds a run; leaves in `inner` where to look on."""
    here = RESULT in files
    inner[:] = [name for name in inner if not here and name not in ("wandb", "checkpoints", "tensorboard") and name[0] != "."]
    return here


def read(folder: Path, catalogue: Catalogue) -> Run:
    """The run that a folder holds."""
    try:
        check_files(folder)
        result = read_result(folder)
        if missing := [name for name in ("status", "config") if name not in result]:
            raise RecipeError(f"{folder / RESULT} cannot be read: it has no {missing[0]}")
        status = str(result["status"])
        plain = Run(folder, status, result)
        _ = plain.replicate, plain.metrics
        log = folder / LOG  # held as long as a process trains there
        if status == "running" and log.exists() and not is_held(log):
            status = "interrupted"
    except (OSError, RecipeError) as error:
        return Run(folder, "broken", {"error": one_line(error)})
    options = result.get("choices") or choices(catalogue, result["config"], result.get("command", ()))
    result["config"] = completed(catalogue, result["config"], options)
    return Run(folder, status, result, options)


def is_whole_png(path: Path) -> bool:
    """Whether a file is a PNG to its end."""
    try:
        content = read_bytes(path, LARGEST_PICTURE)
    except (OSError, RecipeError):
        return False
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")


# Grouping


def named(replicate: Replicate) -> str:
    """A seed, or a seed and a fold, in words behind the word seed."""
    return " fold ".join(map(str, replicate))


def in_one_line(name: object) -> str:
    """A name without line breaks and needless blanks; empty where there is none."""
    return "" if name is None else printable(" ".join(str(name).split()))
