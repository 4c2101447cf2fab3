"""Runs read back from their folders, and grouped into those that differ in nothing but the seed. Nothing here imports torch."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from recipes.catalogue import Catalogue, UsageError, one_line, show
from recipes.config import option_names
from recipes.errors import printable
from recipes.files import is_held
from recipes.shapes import histograms_of, read_confusion, read_result, rows_of
from recipes.untrusted import check_files, read_bytes

# what makes no difference to the training: two runs that differ only here are the same run
WITHOUT_EFFECT: tuple[str, ...] = (
    "seed",
    "name",
    "tags",
    "notes",
    "resume",
    "overwrite",
    "sweep",
    "explain",
    "logger",
    "data.root",
    "data.download",
)
WITHOUT_EFFECT += tuple(f"trainer.{name}" for name in ("progress", "num_threads", "log_every_n_steps", "save_every_n_steps"))
NOTHING_ADDED = "nothing added"
LARGEST_PICTURE = 20_000_000  # bytes
BEHIND_LINKS = 10_000  # folders that are looked at behind links, which may lead anywhere


@dataclass(frozen=True)
class Run:
    """One run folder.

    `status` is finished, stopped, running or failed; interrupted where a process ended without a word, and broken where the
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
    def metrics(self) -> dict[str, float]:
        """The numbers of the best model; not a number where the result has null."""
        return {name: math.nan if value is None else float(value) for name, value in self.result.get("metrics", {}).items()}

    @property
    def error(self) -> str:
        """What went wrong, in one line."""
        return str(self.result.get("error") or self.result.get("stopped_by") or "")

    @cached_property
    def values(self) -> dict[str, Any]:
        """The config as dotted keys, without what makes no difference to the training."""
        flat = flatten(self.config)
        return {key: value for key, value in flat.items() if has_effect(key)}

    @cached_property
    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """The columns of metrics.csv: for each name its steps and values, rows without it left out."""
        try:
            rows = list(rows_of(self.folder / "metrics.csv"))
        except (OSError, UsageError):
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
    def techniques(self) -> list[str]:
        """The names of the options that had a part in the run."""
        named = self.result.get("techniques")
        return [str(name) for name in named] if isinstance(named, list) else []

    @cached_property
    def confusion(self) -> dict[str, tuple[list[str], list[list[int]]]]:
        """For each task its classes and how often a test sample of one (row) was taken for another (column)."""
        try:
            return read_confusion(self.folder)
        except (OSError, UsageError):
            return {}

    @cached_property
    def histograms(self) -> dict[str, list[tuple[int, float, float, list[int]]]]:
        """For each name its histograms: the step, the lowest and the highest value, the counts of bins of equal width."""
        found: dict[str, list[tuple[int, float, float, list[int]]]] = {}
        with suppress(OSError, UsageError):
            for step, name, low, high, counts in histograms_of(self.folder / "histograms.csv"):
                found.setdefault(name, []).append((step, low, high, counts))
        return found

    @property
    def pictures(self) -> dict[str, Path]:
        """For each technique that drew one, the picture of what it does to a batch."""
        return {path.stem: path for path in sorted(self.folder.glob("pictures/*.png")) if is_whole_png(path)}


@dataclass
class Group:
    """Finished runs with one config, one for each seed, by seed. `label` says in what it differs from the other groups."""

    runs: list[Run]
    label: str = ""

    @property
    def values(self) -> dict[str, Any]:
        """The config that the runs share."""
        return self.runs[0].values

    @property
    def options(self) -> Mapping[str, Sequence[str]]:
        """The options that the runs share."""
        return self.runs[0].options

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return [run.seed for run in self.runs]

    def metric(self, name: str) -> dict[int, float]:
        """A metric by seed; not a number where a run does not have it."""
        return {run.seed: run.metrics.get(name, math.nan) for run in self.runs}


@dataclass
class Comparison:
    """Groups of finished runs beside a baseline.

    Attributes:
        groups: in the order in which their first runs were found.
        baseline: the group that the others are compared with.
        metric: the metric that decides, such as `test/acc`.
        unfinished: runs that failed, were stopped or interrupted, or still run.
        differing: the dotted config keys in which groups differ.
        notes: what a reader must know before believing the table, a sentence each.
    """

    groups: list[Group]
    baseline: Group
    metric: str
    unfinished: list[Run]
    differing: list[str]
    notes: list[str]

    @property
    def runs(self) -> list[Run]:
        """All finished runs."""
        return [run for group in self.groups for run in group.runs]


# Reading


def natural(path: Path) -> list[Any]:
    """A key that sorts job 10 behind job 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(path))]


def find(places: Iterable[Path]) -> list[Path]:
    """The run folders that these are, or that lie below them; raises where there is none."""
    found: dict[Path, Path] = {}
    for place in places:
        if not place.is_dir():
            raise UsageError(f"there is no folder {place}")
        inside = sorted(below(place), key=natural)
        if not inside:
            raise UsageError(f"{place} is no run and holds none: looked for result.json")
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
                raise UsageError(
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
    here = "result.json" in files
    inner[:] = [name for name in inner if not here and name not in ("wandb", "checkpoints", "tensorboard") and name[0] != "."]
    return here


def read(folder: Path, catalogue: Catalogue) -> Run:
    """The run that a folder holds."""
    try:
        check_files(folder)
        result = read_result(folder)
        if missing := [name for name in ("status", "config") if name not in result]:
            raise UsageError(f"{folder / 'result.json'} cannot be read: it has no {missing[0]}")
        result["config"] = {**catalogue.keys, **result["config"]}  # a run that is older than a key has its default
        status = str(result["status"])
        plain = Run(folder, status, result)
        _ = plain.seed, plain.metrics
        log = folder / "train.log"  # held as long as a process trains there
        if status == "running" and log.exists() and not is_held(log):
            status = "interrupted"
    except (OSError, UsageError) as error:
        return Run(folder, "broken", {"error": one_line(error)})
    try:
        options: Mapping[str, Sequence[str]] = option_names(catalogue, result["config"])
    except (UsageError, KeyError, AttributeError, TypeError):  # an option of a package that is not installed here
        options = {}
    return Run(folder, status, result, options)


def has_effect(key: str) -> bool:
    """Whether a config key makes a difference to the training."""
    return not any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)


def words_with_effect(command: Iterable[str]) -> list[str]:
    """A command without the words that make no difference to the training, such as the seed."""
    keys = ((word, word.lstrip("+~").partition("=")[0]) for word in command)
    return [word for word, key in keys if has_effect(key) and key.split("/")[0].split(".")[0] != "hydra"]


def is_whole_png(path: Path) -> bool:
    """Whether a file is a PNG to its end."""
    try:
        content = read_bytes(path, LARGEST_PICTURE)
    except (OSError, UsageError):
        return False
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; empty mappings are left out."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


# Grouping


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Runs with one config together; where a seed was run more than once, the later run counts."""
    together: dict[str, dict[int, Run]] = {}
    for run in runs:
        key = json.dumps(run.values, sort_keys=True, default=str)
        together.setdefault(key, {})[run.seed] = run
    return [Group([by_seed[seed] for seed in sorted(by_seed)]) for by_seed in together.values()]


def label(groups: Sequence[Group], catalogue: Catalogue) -> None:
    """Name each group by what sets it apart, in words that can be typed."""
    for group in groups:
        names = {in_one_line(run.config.get("name")) for run in group.runs}
        group.label = names.pop() if len(names) == 1 else ""
    labels = [group.label for group in groups]
    if all(labels) and len(set(labels)) == len(labels):
        return
    config_groups = [name for name in dict.fromkeys(name for group in groups for name in group.options) if has_effect(name)]
    differing = differing_keys(groups)
    for group in groups:
        parts = []
        for name in config_groups:
            chosen = list(group.options.get(name, []))
            if chosen and any(list(other.options.get(name, [])) != chosen for other in groups):
                value = chosen[0] if len(chosen) == 1 else show(chosen).replace(" ", "")
                parts.append(catalogue.spelling(name, value))
        for key in differing:
            owner = key.split(".")[0]
            like = [
                other
                for other in groups
                if key in group.values and key in other.values and other.options.get(owner) == group.options.get(owner)
            ]
            if any(other.values[key] != group.values[key] for other in like):
                parts.append(f"{key}={show(group.values[key])}")
        group.label = in_one_line(" ".join(parts)) or NOTHING_ADDED
    for number, group in enumerate(groups):  # options of packages that are not installed cannot be named
        same = [other for other in groups[:number] if other.label == group.label]
        group.label += f" ({len(same) + 1})" if same else ""


def in_one_line(name: object) -> str:
    """A name without line breaks and needless blanks; empty where there is none."""
    return "" if name is None else printable(" ".join(str(name).split()))


def differing_keys(groups: Sequence[Group]) -> list[str]:
    """The dotted keys whose values are not the same in all groups."""
    keys = dict.fromkeys(key for group in groups for key in group.values)
    absent = object()
    return [key for key in keys if any(group.values.get(key, absent) != groups[0].values.get(key, absent) for group in groups)]
