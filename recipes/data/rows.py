"""Rows of a table as they were read, and how they are drawn into splits: by groups, or as a column of the table says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit, KFold
from torch import Tensor

from plugins.base import RecipeError
from recipes.data.columns import Values
from recipes.data.split import Split
from recipes.data.table import shown

TRAIN, VALIDATION, TEST = range(3)
PARTS = {"train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}


@dataclass
class Rows(Split):
    """Rows before they are encoded: x holds numbers of 64 bits, NaN for holes, and places among the words of a column."""

    lines: Tensor  # of the file
    parts: Tensor  # of each row, TRAIN, VALIDATION or TEST
    groups: Tensor | None  # of each row, a number
    meaning: str  # what the numbers of x and of the labels stand for

    def __getitem__(self, index: Any) -> Rows:
        chosen = super().__getitem__(index)
        groups = None if self.groups is None else self.groups[index]
        return Rows(chosen.x, chosen.targets, self.lines[index], self.parts[index], groups, self.meaning)

    def without(self, held_out: Tensor) -> tuple[Rows, Rows, Tensor]:
        """The other rows, those that are held out, and their places."""
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[held_out] = False
        return self[kept], self[held_out], held_out

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
        return there if there is self else replace(self, x=there.x, targets=there.targets)


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


def groups_of(values: Values, parts: Tensor, lines: np.ndarray, where: str) -> Tensor:
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


def held_out_groups(groups: Tensor, share: float, seed: int, name: str) -> Tensor:
    """Places of rows that are held out: all of some groups.

    Args:
        groups: of each row.
        share: of the groups, in (0, 1).
        seed: which.
        name: of the share, for the error.
    """
    splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    try:
        _, held_out = next(splitter.split(np.zeros(len(groups)), groups=groups.numpy()))
    except ValueError as error:
        count = len(groups.unique())
        raise RecipeError(
            f"data.{name}={share} does not split {count} group{'s' if count != 1 else ''} of data.groups: {error}"
        ) from None
    return torch.from_numpy(np.sort(held_out))


def fold_of_groups(groups: Tensor, folds: int, fold: int, seed: int) -> Tensor:
    """Places of the rows of one fold: all of some groups, each of which is in one fold.

    Args:
        groups: of each row.
        folds: how many, ≥ 2.
        fold: which, from 0 to folds − 1.
        seed: of the order of groups.
    """
    different = groups.unique()
    if folds > len(different):
        raise RecipeError(f"data.folds={folds} does not cut {len(different)} groups of data.groups: at most {len(different)}")
    _, chosen = list(KFold(folds, shuffle=True, random_state=seed).split(different))[fold]
    return torch.isin(groups, different[torch.from_numpy(chosen)]).nonzero()[:, 0]
