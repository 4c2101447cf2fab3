"""Arrays of a user become inputs and targets, or are refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError, expect
from recipes.data.split import Split
from recipes.data.targets import known_labels


def as_images(x: np.ndarray, where: str) -> Tensor:
    """Images as (samples, channels, height, width), bytes or numbers in [0, 1], from the layouts that files come in."""
    check_finite(x, where)
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    expect(x.ndim == 4, where, "images (samples, height, width[, channels])", x.shape)
    images = torch.from_numpy(np.ascontiguousarray(x))
    if images.dtype == torch.uint8:
        return images
    images = images.float()
    if images.numel() and (images.min() < 0 or images.max() > 1):
        low, high = float(images.min()), float(images.max())
        raise RecipeError(f"{where} holds images from {low:g} to {high:g}: give bytes, or numbers between 0 and 1")
    return images


def as_features(x: np.ndarray, where: str) -> Tensor:
    """Features (samples, features) as 32-bit floats."""
    with np.errstate(over="ignore"):
        features = x.astype(np.float32)
    check_finite(features, where)
    return torch.from_numpy(np.ascontiguousarray(features))


def check_finite(x: np.ndarray, where: str) -> None:
    """Refuse NaN and infinity."""
    if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).sum())
        raise RecipeError(f"{where} holds {bad} values that are NaN or infinite: clean the data first")


def check_inputs(x: np.ndarray, where: str) -> None:
    """Refuse what is neither images nor features, or has no samples."""
    expect(x.dtype.kind in "fiub", where, "numbers", x.dtype)
    expect(x.ndim >= 2, where, "features (samples, features) or images (samples, height, width[, channels])", x.shape)
    expect(x.size > 0, where, "at least one sample", x.shape)


def as_labels(y: np.ndarray, where: str, names: np.ndarray | None = None, ignored: int | None = None) -> Tensor:
    """Targets as class numbers 0, 1, … or as floats; text becomes the place among the sorted `names` of all splits.

    Labels that the loss leaves out, `ignored`, may be any number.
    """
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind != "f":
        y = y[:, 0]
    if y.ndim != 1 and not (y.ndim == 2 and y.dtype.kind == "f" and y.shape[1]):
        raise RecipeError(
            f"{where} must have one value a sample, or floats (samples, columns); got an array of shape {y.shape}"
        )
    check_finite(y, where)
    if y.dtype.kind in "US":
        y = np.searchsorted(np.unique(y) if names is None else names, y)
    if y.dtype.kind == "f":  # of one column or several
        return torch.from_numpy(y.astype(np.float32))
    if y.dtype.kind not in "iub":
        raise RecipeError(f"{where} must hold numbers or names, got {y.dtype}")
    y = y.astype(np.int64)
    classes = y if ignored is None else y[y != ignored]
    if classes.size and (classes.min() < 0 or classes.max() >= max(1000, len(y))):
        fix = "; to leave samples out take a loss with ignore_index, as torch's, or drop these samples" if y.min() < 0 else ""
        raise RecipeError(
            f"{where} must hold class numbers 0, 1, …; they reach from {classes.min()} to {classes.max()}, out of range{fix}"
        )
    return torch.from_numpy(y)


def check_several_classes(train: Split, ignored: int | None = None) -> None:
    """Refuse targets of one class, from which no model can learn to tell classes apart."""
    for name, given in train.targets.items():
        target = known_labels(given, ignored)
        if len(given) and not len(target):
            raise RecipeError(
                f"all {len(given)} training labels{f' of {name}' if name else ''} are {ignored}, which the loss ignores"
            )
        if not target.is_floating_point() and len(target) > 1 and bool((target == target.flatten()[0]).all()):
            raise RecipeError(
                f"all {len(target)} training labels{f' of {name}' if name else ''} are of one class, "
                f"{int(target.flatten()[0])}: there is nothing to tell apart; to predict a number give targets as floats"
            )


def check_classes(train: Split, test: Split, ignored: int | None = None) -> None:
    """Refuse a test split with targets that training cannot know."""
    for name, given in train.targets.items():
        target, other = known_labels(given, ignored), known_labels(test.targets[name], ignored)
        if target.is_floating_point() != other.is_floating_point():
            raise RecipeError(f"the targets {name} of training and test differ in kind: {target.dtype} and {other.dtype}")
        if not target.is_floating_point() and len(other) and int(other.max()) > int(target.max()):
            raise RecipeError(
                f"test labels{f' of {name}' if name else ''} are out of range: class {int(other.max())} is in the test split, "
                f"but training knows classes 0 to {int(target.max())} only"
            )
    if train.x.shape[1:] != test.x.shape[1:]:
        raise RecipeError(f"samples of training and test differ in shape: {tuple(train.x.shape)} and {tuple(test.x.shape)}")


def same_length(named: Sequence[tuple[str, Any]], where: str) -> None:
    """Refuse inputs and targets of different lengths, and a single number in the place of an array."""
    for name, array in named:
        expect(array.ndim > 0, f"{where}: {name}", "an array with one entry a sample", array)
    if len({len(array) for _, array in named}) > 1:
        sizes = ", ".join(f"{name} has {len(array)}" for name, array in named)
        raise RecipeError(f"{where}: arrays differ in length: {sizes}")
