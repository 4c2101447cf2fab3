"""Which runs were trained on the same data: their content decides, wherever it lies. Nothing here imports torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from recipes.compare.runs import Run, in_one_line

SOURCE = ("_target_", "name", "path", "root", "labels", "input", "target")  # keys of `data` that say which data it is
PLACES = ("data.path", "data.labels", "data.root")  # where it lies, which says nothing where its content is known
LONGEST = 40  # letters of a name in the name of a file


def source(run: Run) -> str:
    """What a run's config says of its data."""
    data = run.config.get("data")
    data = data if isinstance(data, dict) else {}
    return json.dumps({name: data[name] for name in SOURCE if name in data}, sort_keys=True, default=str)


def keys(runs: Iterable[Run]) -> dict[int, str]:
    """By the id of each run what tells its data set from those of the others.

    It is a hash of the content. Runs of older versions keep none: theirs is that of the runs whose config names the same data,
    where these agree, or else what their config says.
    """
    runs = list(runs)
    known: dict[str, set[str]] = {}
    for run in runs:
        if run.content:
            known.setdefault(source(run), set()).add(run.content)
    found = {}
    for run in runs:
        hashes = known.get(source(run), set())
        found[id(run)] = run.content or (next(iter(hashes)) if len(hashes) == 1 else source(run))
    return found


def by_data(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each data set, in the order of their first ones."""
    of = keys(runs)
    sets: dict[str, list[Run]] = {}
    for run in runs:
        sets.setdefault(of[id(run)], []).append(run)
    return list(sets.values())


def names(sets: Sequence[Sequence[Run]]) -> list[str]:
    """A name for each data set: its option or its file, and in what it differs from others of that name."""
    found = [_name(runs[0]) for runs in sets]
    for words in (("target",), ("path", "labels", "root"), ("input",)):
        for name in {name for name in found if found.count(name) > 1}:
            same = [place for place, other in enumerate(found) if other == name]
            values = [
                " ".join(f"{word}={data[word]}" for word in words if (data := sets[place][0].data).get(word)) for place in same
            ]
            if len(set(values)) > 1:
                for place, value in zip(same, values, strict=True):
                    found[place] = in_one_line(f"{name} {value}")
    return [f"{name} ({found[:place].count(name) + 1})" if name in found[:place] else name for place, name in enumerate(found)]


def _name(run: Run) -> str:
    data = run.config.get("data")
    data = data if isinstance(data, dict) else {}
    chosen = [*run.options.get("data", ()), str(data.get("_target_", "data")).rpartition(".")[2]]
    return in_one_line(PurePath(str(data["path"])).name if data.get("path") else data.get("name") or chosen[0]) or "data"


def as_file(names: Sequence[str]) -> list[str]:
    """The names as parts of names of files, no two alike."""
    found: list[str] = []
    for name in names:
        part = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.")[:LONGEST] or "data"
        number = 1
        while (f"{part}-{number}" if number > 1 else part).lower() in map(str.lower, found):
            number += 1
        found.append(f"{part}-{number}" if number > 1 else part)
    return found
