"""Which options are tried together, and what is asked of a selection: it trains, or is refused in one line before that."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from plugins.base import Diverged, Plugin, RecipeError, does_something
from recipes.check import choice, harness, refusals
from recipes.check.covering import Options, cover
from recipes.check.narrowing import narrow
from recipes.check.samples import expect_loss
from recipes.check.trained import same_bits, weights

T = TypeVar("T")
SLOWER = 0.05  # of the learning rate, where a selection diverges


@dataclass(frozen=True)
class Fault:
    """What is wrong with a selection."""

    refused: bool  # before the first batch
    text: str


class Selections:
    """Some options beside each other.

    Args:
        names: of the options.
        pins: what is known to be refused, as in refusals.yaml.
        of: those whose pairs are asked for; None: all pairs are.
        again: lines of `pins` that may say what another one says.
    """

    def __init__(
        self,
        names: Sequence[str],
        pins: Mapping[str, str] | None = None,
        of: Sequence[str] | None = None,
        again: Collection[str] = (),
    ) -> None:
        self.of = of
        self.names = [name for name in names if acts(name)]
        self.needs = {name: found for name in self.names if (found := harness.needs(name))}
        further = {name for needed in self.needs.values() for alternatives in needed for name in alternatives}
        self.beside = sorted(further - set(self.names))
        self.pinned = refusals.expand(pins or {}, [*self.names, *self.beside], again)
        everything = [*self.names, *self.beside]
        excluded = [pair for pair in itertools.combinations(everything, 2) if not _can_be_typed(*pair) or _are_apart(*pair)]
        self.options = Options(everything, [*excluded, *self.pinned], self.needs)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs that can be typed, of different groups or of one group that takes several, and mean something on the same data."""
        return [pair for pair in self._typed if not _are_apart(*pair)]

    @cached_property
    def apart(self) -> list[tuple[str, str]]:
        """Pairs of an option for classes and one for numbers, or for images and for points: no data is right for both."""
        return [pair for pair in self._typed if _are_apart(*pair)]

    @cached_property
    def _typed(self) -> list[tuple[str, str]]:
        pairs = (pair for pair in itertools.combinations(self.names, 2) if _can_be_typed(*pair))
        return [pair for pair in pairs if self.of is None or not set(self.of).isdisjoint(pair)]

    @cached_property
    def runs(self) -> list[tuple[str, ...]]:
        """Selections of about eight in which every pair that is not refused stands."""
        return cover(self.options, beside=self.beside, of=self.of)

    def complete(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names with what they need."""
        if (selection := self.options.all_of(names)) is not None:
            return self.options.chosen(selection)
        found = list(names)  # is listed as refused: as it would be typed
        for alternatives in (needed for name in names for needed in self.needs.get(name, ())):
            found += [alternatives[0]] if not set(alternatives) & set(found) else []
        return tuple(found)

    def minimal(self, names: Sequence[str], fault: Fault, folder: Path) -> tuple[tuple[str, ...], Fault]:
        """Of a selection with a fault the few options that have it, and what it is there."""
        faults = {tuple(names): fault}

        def fails(fewer: tuple[str, ...]) -> bool:
            found = fault_of(self.complete(fewer), folder)
            if found is not None:
                faults[fewer] = found
            return found is not None and found.refused == fault.refused

        few = narrow(names, fails)
        return few, faults[few]

    def told(self, names: Sequence[str], fault: Fault, folder: Path) -> str:
        """The fault of a run, narrowed to what has it."""
        few, found = self.minimal(names, fault, folder)
        what = "refused, which does not stand in refusals.yaml" if found.refused else "failed"
        words = " ".join(choice.select(self.complete(few)))
        return f"{refusals.TIMES.join(few)} {what}: {found.text}\n  alone: {words}\n  found in: {', '.join(names)}"


@cache
def everything() -> Selections:
    """All options of ours beside each other, with the refusals that are known."""
    return Selections(choice.options(), refusals.read())


def acts(name: str) -> bool:
    """Whether an option is more than a name for leaving things as they are."""
    found = choice.plugin_class(name)
    return found is None or does_something(Plugin.__new__(found))


def _can_be_typed(first: str, second: str) -> bool:
    group = first.split("/")[0]
    return group != second.split("/")[0] or choice.is_many(group)


@cache
def _are_apart(first: str, second: str) -> bool:
    """Whether one works on classes alone and the other on numbers alone, or one asks for data on which the other is refused."""
    works = [harness.works_on(name) or {"classes"} for name in (first, second)]  # what is refused alone asks for something else
    return not works[0] & works[1] or _refuses_data_of(first, second) or _refuses_data_of(second, first)


def _refuses_data_of(name: str, other: str) -> bool:
    """Whether an option is refused on the data that another one asks for."""
    if any(each.split("/")[0] in choice.NO_TECHNIQUES for each in (name, other)):
        return False
    asked = [alternatives[0] for alternatives in harness.needs(other)]
    if not any(need.startswith("data/") for need in asked):
        return False
    taken = {need.split("/")[0] for need in asked}
    own = [alternatives[0] for alternatives in harness.needs(name) if alternatives[0].split("/")[0] not in taken]
    return refusal_of([*asked, *own, name]) is not None


def refusal_of(names: Sequence[str]) -> str | None:
    """The line in which a selection is refused; None if it is not. Nothing is trained."""
    try:
        config = harness.merged_config(names)
        expect_loss(harness.build(config), harness.data_of(config))
    except RecipeError as error:
        return str(error)
    return None


def at_a_rate_that_trains(names: Sequence[str], check: Callable[[dict[str, Any]], T]) -> T:
    """What a check says of a selection's config; where the learning rate is too large for what meets there, of one with a smaller one."""
    try:
        return check(harness.merged_config(names))
    except Diverged:  # or it is a fault: then of any rate
        config = harness.merged_config(names)
        if config["optimizer"].get("lr"):
            config["optimizer"]["lr"] *= SLOWER
        return check(config)


def fault_of(names: Sequence[str], folder: Path) -> Fault | None:
    """What is wrong with three steps of training; None: all is well, and the order in which options are written is free."""
    try:
        return at_a_rate_that_trains(names, lambda config: _fault_of(config, folder))
    except RecipeError as error:
        return Fault(not isinstance(error, Diverged), str(error))


def _fault_of(config: dict[str, Any], folder: Path) -> Fault | None:
    try:
        module = harness.fit(config, folder / "written", 3)
        if module.steps_done != 3:
            return Fault(False, f"{module.steps_done} steps instead of 3")
        found = weights(module)
        bad = [name for name, value in found.items() if value.is_floating_point() and not torch.isfinite(value).all()]
        if bad:
            return Fault(False, f"not finite: {', '.join(bad)}")
        turned = weights(harness.fit(config, folder / "turned", 3, reverse=True))
        if differs := same_bits(found, turned):
            return Fault(False, f"written in another order it trains other weights: {', '.join(differs)}")
    except RecipeError:
        raise
    except Exception:
        return Fault(False, traceback.format_exc()[-1500:])
    return None
