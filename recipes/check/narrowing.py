"""The few of many that make something fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence


def narrow(names: Sequence[str], fails: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...]:
    """A selection that fails of which no single name can be left out, found by trying halves first, then ever smaller pieces.

    Args:
        names: which fail together.
        fails: whether a selection of them does; asked once for each.

    Source: Zeller & Hildebrandt, "Simplifying and isolating failure-inducing input", 2002 (ddmin).
    """
    names, pieces = tuple(names), 2
    passed: set[tuple[str, ...]] = set()
    while len(names) > 1:
        for fewer in _fewer(names, pieces):
            if fewer not in passed and fails(fewer):
                names, pieces = fewer, 2
                break
            passed.add(fewer)
        else:
            if pieces >= len(names):
                return names
            pieces = min(2 * pieces, len(names))
    return names


def _fewer(names: tuple[str, ...], pieces: int) -> Iterator[tuple[str, ...]]:
    """The names cut into pieces, each piece alone; then all but one piece."""
    borders = [len(names) * piece // pieces for piece in range(pieces + 1)]
    cuts = list(itertools.pairwise(borders))
    yield from (names[start:end] for start, end in cuts)
    if pieces > 2:
        yield from (names[:start] + names[end:] for start, end in cuts)
