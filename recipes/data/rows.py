"""Rows of a table as they were read, and how they are drawn into splits: by groups, or as a column of the table says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError
from recipes.data.columns import Values
from recipes.data.source import Source
from recipes.data.split import Split, without
from recipes.data.table import shown
from recipes.data.times import forward, latest

TRAIN, VALIDATION, TEST = range(3)
PARTS = {"train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}


@dataclass
class Rows(Split):
    """Rows before they are encoded: x holds numbers of 64 bits, NaN for holes, and places among the words of a column."""

    lines: Tensor  # of the file
    parts: Tensor  # of each row, TRAIN, VALIDATION or TEST
    times: Tensor | None  # of each row, its place among the different times
    meaning: str  # what the numbers of x and of the labels stand for

    def __getitem__(self, index: Any) -> Rows:
        chosen = super().__getitem__(index)
        times = None if self.times is None else self.times[index]
        beside = {"weight": chosen.weight, "groups": chosen.groups}
        return Rows(chosen.x, chosen.targets, self.lines[index], self.parts[index], times, self.meaning, **beside)

    def divided(self, share: float, name: str, drawn: Callable[[Rows], Tensor]) -> tuple[Source, Source, Tensor]:
        """The rows that are kept, those held out, and their places: as a column says, the latest, or drawn."""
        validation = self.parts == VALIDATION
        if name == "validation" and validation.any():
            return without(self, validation.nonzero()[:, 0])
        free = (~validation).nonzero()[:, 0]
        rows = self[free]
        return without(self, free[drawn(rows) if rows.times is None else latest(rows.times, share, name)])

    def folded(self, folds: int, fold: int, drawn: Callable[[Rows], Tensor]) -> tuple[Source, Source, Tensor]:
        """The rows that are trained on, those of one fold, and their places; of times only earlier ones are trained on."""
        free = (self.parts != VALIDATION).nonzero()[:, 0]
        rows = self[free]
        if rows.times is not None:
            earlier, held_out = forward(rows.times, folds, fold)
            return self[free[earlier]], self[free[held_out]], free[held_out]
        return without(self, free[drawn(rows)])

    def contents(self) -> Iterator[Any]:
        """What tells the rows from others: names and words, too, which the numbers stand for."""
        yield self.meaning.encode()
        yield from super().contents()


@dataclass
class Encoded(Split):
    """Rows as features."""

    remark: str = ""

    def to(self, device: torch.device) -> Split:
        """The rows on a device."""
        there = super().to(device)
        if there is self:
            return self
        return replace(self, x=there.x, targets=there.targets, weight=there.weight, groups=there.groups)


def weights_of(values: Values, lines: np.ndarray, where: str) -> Tensor:
    """What each row counts, floats of 32 bits.

    Raises:
        RecipeError: a row without a weight, or with one below 0.
    """
    numbers = values.numbers
    for row in np.flatnonzero(np.isnan(numbers))[:1]:
        raise RecipeError(f"{where}, line {lines[row]}: the cell is empty: each row must have a weight, 0 to leave it out")
    for row in np.flatnonzero(numbers < 0)[:1]:
        raise RecipeError(f"{where}, line {lines[row]}: a weight must be ≥ 0, got {numbers[row]:g}")
    return torch.from_numpy(numbers.astype(np.float32))


def parts_of(values: Values, lines: np.ndarray, where: str) -> Tensor:
    """The part of each row, as a column says it.

    Raises:
        RecipeError: a cell that is none of the words, or no row to train on.
    """
    words = values.words or []
    for row in np.flatnonzero(np.isnan(values.numbers))[:1]:
        raise RecipeError(f"{where}, line {lines[row]}: the cell is empty, expected train, validation or test")
    known = [PARTS.get(each.lower(), -1) for each in words]
    parts = np.array(known, dtype=np.int64)[values.numbers.astype(np.int64)]
    for row in np.flatnonzero(parts < 0)[:1]:
        raise RecipeError(
            f"{where}, line {lines[row]}: {shown(words[int(values.numbers[row])])} is no split, expected train, validation or test"
        )
    if TRAIN not in parts:
        raise RecipeError(f"{where}: no row is of the split train")
    return torch.from_numpy(parts)


def groups_of(parts: Tensor, values: Values, lines: np.ndarray, where: str) -> Tensor:
    """The number of each row's group.

    Raises:
        RecipeError: a row of no group, or a group in two of the splits that another column says.
    """
    for row in np.flatnonzero(np.isnan(values.numbers))[:1]:
        raise RecipeError(f"{where}, line {lines[row]}: the cell is empty: each row must be of a group")
    groups = values.numbers.astype(np.int64)
    first = np.full(int(groups.max()) + 1, -1)
    first[groups[::-1]] = parts.numpy()[::-1]  # the part of the first row of each group
    for row in np.flatnonzero(first[groups] != parts.numpy())[:1]:
        raise RecipeError(
            f"{where}, line {lines[row]}: rows of the group {shown((values.words or [])[groups[row]])} are in two splits: correct data.split, "
            f"or leave it or data.groups out"
        )
    return torch.from_numpy(groups)
