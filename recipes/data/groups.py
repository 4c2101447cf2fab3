"""Samples that belong together, such as those of one patient, and are drawn into splits together."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit, KFold
from torch import Tensor

from plugins.base import RecipeError


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
