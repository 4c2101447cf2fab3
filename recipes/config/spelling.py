"""What was probably meant by a name that there is not: only what is close to it. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

SHORTEST = 3  # letters of an abbreviation that is taken for the word


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The closest of the names that are close at all."""
    typed = _plain(name)
    close = [other for other in names if typed and is_close(typed, _plain(other))]
    return max(
        close, key=lambda other: (_initials(typed, other), SequenceMatcher(None, typed, _plain(other)).ratio()), default=None
    )


def suggest(name: str, names: Iterable[str], spelling: str = "{}") -> str:
    """The end of a message about an unknown name: the one that was probably meant, or all there are."""
    names = sorted(names)
    if found := nearest(name, names):
        return f"did you mean {spelling.format(found)}?"
    return f"there is {', '.join(names)}" if names else "there is none"


def is_close(first: str, second: str) -> bool:
    """Whether one name may stand for another.

    They may differ by a slip of the fingers in each four letters; one may be a part of the other (`epochs` of `max_epochs`,
    `acc` for `accuracy`) or its initials (`lr`); or they are one metric of two splits.
    """
    if _same_word(first, second):
        return True
    few, many = sorted((re.findall(r"[^\W_]+", first), re.findall(r"[^\W_]+", second)), key=len)
    if few and all(any(_same_word(part, other) or _abbreviates(part, other) for other in many) for part in few):
        return True
    if _initials(first, second):
        return True
    return "/" in first and "/" in second and is_close(first.rpartition("/")[2], second.rpartition("/")[2])


def distance(first: str, second: str) -> int:
    """The number of letters to insert, to leave out, to replace or to exchange with their neighbours."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for place, letter in enumerate(first, 1):
        last, before, row = before, row, [place] + [0] * len(second)
        for at, other in enumerate(second, 1):
            row[at] = min(before[at] + 1, row[at - 1] + 1, before[at - 1] + (letter != other))
            if place > 1 and at > 1 and letter == second[at - 2] and first[place - 2] == other:
                row[at] = min(row[at], last[at - 2] + 1)
    return row[-1]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _initials(first: str, second: str) -> bool:
    """Whether one is made of the first letters of the other's words: `lr` of `learning_rate`."""
    few, many = sorted((re.findall(r"[^\W_]+", _plain(each)) for each in (first, second)), key=len)
    return len(few) == 1 < len(many) and "".join(part[0] for part in many) == few[0]


def _same_word(first: str, second: str) -> bool:
    longest = max(len(first), len(second))
    slips = max(int(longest >= SHORTEST or len(first) != len(second)), longest // 4)
    return first == second or (abs(len(first) - len(second)) <= slips and distance(first, second) <= slips)


def _abbreviates(first: str, second: str) -> bool:
    return min(len(first), len(second)) >= SHORTEST and (first.startswith(second) or second.startswith(first))
