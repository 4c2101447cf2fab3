"""Which samples are held out: of the classes each has its share, and of groups, such as the samples of one patient, all or none."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit, KFold, StratifiedKFold, train_test_split
from torch import Tensor

from plugins.base import RecipeError
from recipes.data.source import Source


def share_of(samples: Source, share: float, seed: int, name: str) -> Tensor:
    """Places of a share of the samples, in order.

    Args:
        samples: all.
        share: in (0, 1).
        seed: which.
        name: of the share, for the error.

    Raises:
        RecipeError: nothing would be left, or held out.
    """
    if samples.groups is not None:
        return _share_of_groups(samples.groups, share, seed, name)
    labels = next(iter(samples.labels.values()))
    stratify = None
    if not labels.is_floating_point() and labels.ndim == 1:  # maps of classes have no class of their own
        _, counts = labels.unique(return_counts=True)
        # where a class cannot be on both sides the split is drawn without stratification
        if counts.min() >= 2 and len(counts) <= min(share, 1 - share) * len(labels):
            stratify = labels.numpy()
    try:
        _, held_out = train_test_split(np.arange(len(samples)), test_size=share, random_state=seed, stratify=stratify)
    except ValueError as error:
        raise RecipeError(f"data.{name}={share} does not split {len(samples)} samples: {error}") from None
    return torch.from_numpy(np.sort(held_out))


def fold_of(samples: Source, folds: int, fold: int, seed: int) -> Tensor:
    """Places of the samples of one fold, in order.

    Args:
        samples: all.
        folds: how many, ≥ 2.
        fold: which, from 0 to folds − 1.
        seed: of the cut.

    Raises:
        RecipeError: more folds than samples, or than groups.
    """
    if samples.groups is not None:
        return _fold_of_groups(samples.groups, folds, fold, seed)
    if folds > len(samples):
        raise RecipeError(f"data.folds={folds} does not cut {len(samples)} samples: at most {len(samples)}")
    labels = next(iter(samples.labels.values()))
    stratified = (
        not labels.is_floating_point() and labels.ndim == 1 and int(labels.unique(return_counts=True)[1].min()) >= folds
    )
    cut = (StratifiedKFold if stratified else KFold)(folds, shuffle=True, random_state=seed)
    _, held_out = list(cut.split(np.zeros(len(samples)), labels.numpy() if stratified else None))[fold]
    return torch.from_numpy(held_out)


def _share_of_groups(groups: Tensor, share: float, seed: int, name: str) -> Tensor:
    """Places of rows that are held out: all of some groups."""
    splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    try:
        _, held_out = next(splitter.split(np.zeros(len(groups)), groups=groups.numpy()))
    except ValueError as error:
        count = len(groups.unique())
        raise RecipeError(
            f"data.{name}={share} does not split {count} group{'s' if count != 1 else ''} of data.groups: {error}"
        ) from None
    return torch.from_numpy(np.sort(held_out))


def _fold_of_groups(groups: Tensor, folds: int, fold: int, seed: int) -> Tensor:
    """Places of the rows of one fold: all of some groups, each of which is in one fold."""
    different = groups.unique()
    if folds > len(different):
        raise RecipeError(f"data.folds={folds} does not cut {len(different)} groups of data.groups: at most {len(different)}")
    _, chosen = list(KFold(folds, shuffle=True, random_state=seed).split(different))[fold]
    return torch.isin(groups, different[torch.from_numpy(chosen)]).nonzero()[:, 0]
