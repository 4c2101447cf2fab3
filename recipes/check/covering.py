"""Few selections of options in which every pair stands together at least once: a covering array, with what excludes each other."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


class Options:
    """Which of some options can be chosen together. A selection is an integer: bit i stands for option i.

    Args:
        names: of the options.
        forbidden: sets of options that cannot all be chosen together; what contains one of them is forbidden too.
        needs: for an option, what else must be chosen with it: one of each of these lists, by preference.
    """

    def __init__(
        self,
        names: Sequence[str],
        forbidden: Iterable[Collection[str]] = (),
        needs: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> None:
        self.names = list(names)
        self._number = {name: number for number, name in enumerate(self.names)}
        self._needs = {self._number[name]: found for name, found in (needs or {}).items()}
        self._partners = [0] * len(self.names)  # what an option excludes by itself
        self._larger: list[list[int]] = [[] for _ in self.names]  # sets of three and more, by each of their options
        for names_of_one in forbidden:
            if not set(names_of_one) <= self._number.keys():
                continue
            numbers = {self._number[name] for name in names_of_one}
            for number in numbers:
                others = self.selection(self.names[other] for other in numbers - {number})
                if len(numbers) == 2:
                    self._partners[number] |= others
                else:
                    self._larger[number].append(others)

    def selection(self, names: Iterable[str]) -> int:
        """The integer that stands for some names."""
        return sum(1 << self._number[name] for name in names)

    def partners(self, name: str) -> int:
        """The selection of all that an option excludes by itself."""
        return self._partners[self._number[name]]

    def chosen(self, selection: int) -> tuple[str, ...]:
        """The names that an integer stands for."""
        return tuple(name for number, name in enumerate(self.names) if selection >> number & 1)

    def ways(self, selection: int, number: int) -> Iterator[int]:
        """All ways to choose one more option with what it needs, where nothing is forbidden, by preference."""
        if selection >> number & 1:
            yield selection
        elif not self._partners[number] & selection and all(others & ~selection for others in self._larger[number]):
            yield from self._supplied(selection | 1 << number, self._needs.get(number, ()))

    def _supplied(self, selection: int, needed: Sequence[Sequence[str]]) -> Iterator[int]:
        if not needed:
            yield selection
        elif self.selection(needed[0]) & selection:
            yield from self._supplied(selection, needed[1:])
        else:
            for name in needed[0]:
                for grown in self.ways(selection, self._number[name]):
                    yield from self._supplied(grown, needed[1:])

    def all_of(self, names: Sequence[str], selection: int = 0) -> int | None:
        """The selection with some more options and what they need; None if that is forbidden."""
        if not names:
            return selection
        ways = (self.all_of(names[1:], grown) for grown in self.ways(selection, self._number[names[0]]))
        return next((grown for grown in ways if grown is not None), None)


def allowed_pairs(
    options: Options, beside: Collection[str] = (), of: Collection[str] | None = None
) -> Iterator[tuple[int, int]]:
    """All pairs that can be chosen together, with what they need, but those with an option of `beside`; with `of`, those with one of these."""
    numbered = [(number, name) for number, name in enumerate(options.names) if name not in beside]
    for (first, one), (second, other) in itertools.combinations(numbered, 2):
        if (of is None or one in of or other in of) and options.all_of((one, other)) is not None:
            yield first, second


def cover(
    options: Options, size: int = 8, beside: Collection[str] = (), of: Collection[str] | None = None
) -> list[tuple[str, ...]]:
    """Selections of up to `size` options in which every allowed pair stands at least once, by a greedy search.

    Each selection begins with the option that has most pairs left, and grows by the option that adds most pairs which stood in
    none before. The same options give the same selections. A pair that needs more than `size` options gets them all.

    Args:
        options: which of them can be chosen together.
        size: of a selection; n pairs take at least n / (size · (size − 1) / 2) selections.
        beside: options that are chosen where one needs them, and whose own pairs do not count.
        of: options of which each pair must have one to count; None: all pairs count.
    """
    left = [0] * len(options.names)  # for each option, those with which it still has to stand
    for first, second in allowed_pairs(options, beside, of):
        left[first] |= 1 << second
        left[second] |= 1 << first
    found = []
    while any(left):
        first = max(range(len(left)), key=lambda number: left[number].bit_count())
        second = max(_bits(left[first]), key=lambda number: left[number].bit_count())
        selection = options.all_of((options.names[first], options.names[second]))
        assert selection is not None
        while (grown := _grow(options, left, selection, size)) is not None:
            selection = grown
        for number in _bits(selection):
            left[number] &= ~selection
        found.append(options.chosen(selection))
    return found


def gather(options: Options, names: Sequence[str], size: int = 8) -> list[tuple[str, ...]]:
    """Few selections of up to `size` options in which each of some stands at least once.

    What excludes most of those that are left goes first, so that each selection has one of the group with most options.
    """
    left, found = list(names), []
    while left:
        waiting = options.selection(left)
        left.sort(key=lambda name: -(options.partners(name) & waiting).bit_count())
        selection = options.all_of(left[:1])
        assert selection is not None, f"{left[0]} is forbidden by itself"
        for name in left[1:]:
            grown = options.all_of([name], selection)
            if grown is not None and grown.bit_count() <= size:
                selection = grown
        found.append(options.chosen(selection))
        left = [name for name in left if name not in found[-1]]
    return found


def _grow(options: Options, left: Sequence[int], selection: int, size: int) -> int | None:
    """The selection with the option that brings most new pairs, of several the one with most pairs left; None: none brings any."""
    best, most = None, (0.0, 0)
    for number, missing in enumerate(left):
        if selection >> number & 1 or not missing & selection:
            continue
        grown = next(options.ways(selection, number), None)
        if grown is None or grown.bit_count() > size:
            continue
        new = _bits(grown & ~selection)
        gain = sum((left[other] & grown).bit_count() for other in new) / len(new)
        if (gain, missing.bit_count()) > most:
            best, most = grown, (gain, missing.bit_count())
    return best


def _bits(selection: int) -> list[int]:
    """The numbers of the options in a selection."""
    found = []
    while selection:
        lowest = selection & -selection
        found.append(lowest.bit_length() - 1)
        selection ^= lowest
    return found
