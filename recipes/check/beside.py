"""What is asked of the options of a package beside ours: a pair trains, or is refused in one line before the first batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from plugins.base import RecipeError
from recipes.check import choice, harness, refusals
from recipes.check.outcome import NotAsked, Wrong, wrong
from recipes.check.package import Package
from recipes.check.refusals import TIMES
from recipes.check.selections import Selections, fault_of, refusal_of

WORLDS = ("model/", "data/")  # what these cannot do depends on them alone: it is told, and need not be listed
Pair = tuple[str, str]


class Beside:
    """The pairs of a package's options with ours and with each other.

    Args:
        package: whose options they are.
        ours: those that stand beside them; None: all.
    """

    def __init__(self, package: Package, ours: Sequence[str] | None = None) -> None:
        self.package = package
        usable = []
        for name in package.options:
            try:
                harness.with_companions(name)
            except RecipeError:
                continue  # is refused by itself, which its other checks tell
            usable.append(name)
        self.usable = frozenset(usable)
        self.names = [*(choice.options() if ours is None else ours), *usable]
        self.pins = {**(refusals.read() if ours is None else {}), **(package.pins or {})}
        self.selections = Selections(self.names, self.pins, usable, package.pins or ())
        self._refused: dict[Pair, str | None] = {}
        self.further: dict[tuple[str, ...], str] = {}
        self._faults: dict[tuple[str, ...], str] | None = None

    def pairs_of(self, name: str) -> list[Pair]:
        """All pairs that have an option of the package."""
        return [pair for pair in self.selections.pairs if name in pair]

    def refusal(self, pair: Pair) -> str | None:
        """The line in which a pair is refused; each is built once."""
        if pair not in self._refused:
            self._refused[pair] = refusal_of(self.selections.complete(pair))
        return self._refused[pair]

    def faults(self, folder: Path) -> dict[tuple[str, ...], str]:
        """What is wrong where pairs train, in runs that cover all of them, by the few options that have it."""
        if self._faults is None:
            refused = {TIMES.join(sorted(pair)): "" for pair in self.selections.pairs if self.refusal(pair) is not None}
            listed = {TIMES.join(sorted(names)): "" for names in self.selections.pinned}
            selections, self._faults = Selections(self.names, {**listed, **refused}, sorted(self.usable)), {}
            for names in selections.runs:
                self._train(names, selections, folder, self._faults)
        return self._faults

    def _train(self, names: tuple[str, ...], selections: Selections, folder: Path, faults: dict[tuple[str, ...], str]) -> None:
        """Train a run; one that is refused without each of the few options for which it is, so that the other pairs are trained."""
        if (fault := fault_of(names, folder / "run")) is None:
            return
        few, found = selections.minimal(names, fault, folder / "narrowed")
        line = (found.text.strip().splitlines() or [""])[-1]  # of a traceback the last one
        told = f"{line} (alone: {' '.join(choice.select(selections.complete(few)))})"
        if not found.refused:
            faults[few] = f"{TIMES.join(sorted(few))} failed: {told}"
            return
        if self.package.pins is None or any(name.startswith(WORLDS) for name in few):
            self.further[tuple(sorted(few))] = found.text  # need not be listed
        else:
            faults[few] = f"{TIMES.join(sorted(few))} refused, which is not listed: {told}"
        for name in few:
            fewer = selections.complete([other for other in names if other != name])
            if len(fewer) < len(names):
                self._train(fewer, selections, folder, faults)


@cache
def beside(package: Package) -> Beside:
    """The pairs of a package, found once."""
    return Beside(package)


def refusals_of(name: str, found: Beside) -> dict[Pair, str]:
    """All pairs of an option that are refused, each with the line."""
    pairs = [*found.pairs_of(name), *(pair for pair in found.selections.apart if name in pair)]
    return {pair: text for pair in pairs if (text := found.refusal(pair)) is not None}


def refusals_wrong(name: str, found: Beside) -> list[str]:
    """What is wrong with refusals: of more than one line, or not what the package lists, where it lists any."""
    lines, listed, pinned = [], found.selections.pinned, found.package.pins is not None
    of_package = set(refusals.expand(found.package.pins or {}, found.names))
    for pair in found.pairs_of(name):
        text, names = found.refusal(pair), frozenset(pair)
        if text is None:
            if names in of_package:
                lines.append(f"{TIMES.join(pair)} is listed as refused and is not")
        elif "\n" in text or len(text) <= 30:
            lines.append(f"{TIMES.join(pair)} is not refused in one line that tells the reason: {text}")
        elif names in listed and listed[names] not in text:
            lines.append(f"{TIMES.join(pair)} is refused for another reason than {listed[names]!r}: {text}")
        elif pinned and not any(word.startswith(WORLDS) for word in pair) and not _is_listed(pair, found):
            lines.append(f"{TIMES.join(pair)} is refused and not listed: {text}")
    return lines


def _is_listed(pair: Pair, found: Beside) -> bool:
    """Whether a list of refusals has options of a pair, or of what it needs."""
    names = set(found.selections.complete(pair))
    return any(few <= names for few in found.selections.pinned)


def _expect_usable(name: str, found: Beside) -> None:
    if name not in found.usable:
        raise NotAsked("is refused by itself")
    if name not in found.selections.names:
        raise NotAsked("does nothing that others could meet")


def refused(name: str, folder: Path, package: Package) -> dict[Pair, str]:
    """The refusals of an option's pairs, which are right."""
    found = beside(package)
    _expect_usable(name, found)
    if lines := refusals_wrong(name, found):
        wrong("; ".join(lines))
    return refusals_of(name, found)


def pairs(name: str, folder: Path, package: Package) -> dict[tuple[str, ...], str]:
    """Every pair that is not refused trains, in runs of about eight options; the order they are written in is free.

    Returned is what was refused on the way as three options or more.
    """
    found = beside(package)
    _expect_usable(name, found)
    if lines := [line for few, line in found.faults(folder).items() if name in few]:
        raise Wrong("; ".join(lines))
    return {names: text for names, text in found.further.items() if name in names}
