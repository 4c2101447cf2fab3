"""What is known to be refused: the list in refusals.yaml."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("refusals.yaml")
TIMES, OR = " × ", " | "


def read(path: Path = FILE) -> dict[str, str]:
    """The reasons by what excludes each other, as it is written."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def expand(pins: Mapping[str, str], options: Iterable[str], again: Collection[str] = ()) -> dict[frozenset[str], str]:
    """The reasons by sets of options: a group is each of its options.

    Args:
        pins: as they are written.
        options: that there are.
        again: lines that may say what another one says, as those of a package what ours say of a whole group.

    Raises:
        ValueError: a part that is neither a group nor an option, a single part, a set that stands there twice.
    """
    known, found = list(options), {}
    for written, reason in pins.items():
        for names in _selections(written, known):
            if names in found and written not in again:
                raise ValueError(f"{FILE.name}: {TIMES.join(sorted(names))} stands there twice, the second time as {written}")
            found[names] = reason
    return found


def _selections(written: str, known: list[str]) -> Iterator[frozenset[str]]:
    alternatives = [part.split(OR) for part in written.split(TIMES)]
    parts = [[name for name in known if {name, name.split("/")[0]} & {*these}] for these in alternatives]
    if len(parts) < 2 or not all(parts):
        raise ValueError(f"{FILE.name}: {written} must be groups or options of conf/ with a × between them")
    unique = {frozenset(names) for names in itertools.product(*parts)}  # of a group with itself each pair comes twice
    yield from sorted((names for names in unique if len(names) == len(parts)), key=sorted)
