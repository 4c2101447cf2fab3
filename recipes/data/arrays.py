"""Arrays of a user become inputs and targets, or are refused with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError, expect
from plugins.inputs import alike, described
from recipes.data.source import Source
from recipes.data.targets import are_several_labels, known_labels

NO_LABEL = ("", "None", "nan", "NaN", "<NA>", "NaT")  # what becomes of an absent one where labels are written as text


def as_inputs(x: np.ndarray, where: str) -> Tensor:
    """An array of images, or of features where it has two dimensions."""
    check_inputs(x, where)
    return as_features(x, where) if x.ndim == 2 else as_images(x, where)


def as_images(x: np.ndarray, where: str) -> Tensor:
    """Images as (samples, channels, height, width), bytes or numbers in [0, 1], from the layouts that files come in."""
    images = to_inputs(x, where, images=True)
    check_values([(x, images)], where)
    return images


def as_named_input(x: np.ndarray, where: str) -> Tensor:
    """One of several inputs by name: floats, whole numbers and truth values of any shape as they are, images of bytes as images."""
    expect(x.dtype.kind in "fiub", where, "numbers", x.dtype)
    expect(x.size > 0, where, "at least one sample", x.shape)
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        return as_images(x, where)
    check_finite(x, where)
    if x.dtype.kind != "f":
        kept = x.astype(bool if x.dtype.kind == "b" else np.int64)
        if x.dtype.kind == "u" and x.dtype.itemsize == 8 and (kept < 0).any():
            raise RecipeError(f"{where} reaches {x.max()}, which is no whole number of 64 bits: give smaller ones")
        return torch.from_numpy(np.ascontiguousarray(kept))
    floats = to_inputs(x, where, images=False)
    check_finite(floats.numpy(), where)
    return floats


def as_features(x: np.ndarray, where: str) -> Tensor:
    """Features (samples, features) as 32-bit floats."""
    features = to_inputs(x, where, images=False)
    check_values([(x, features)], where)
    return features


def to_inputs(x: np.ndarray, where: str, images: bool) -> Tensor:
    """Images or features as `as_images` and `as_features` give them, whatever their values are."""
    if not images:
        with np.errstate(over="ignore"):
            return torch.from_numpy(np.ascontiguousarray(x.astype(np.float32, copy=not x.flags.writeable)))
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and channels_last(x.shape):
        x = x.transpose(0, 3, 1, 2)
    expect(x.ndim == 4, where, "images (samples, height, width[, channels])", x.shape)
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.ascontiguousarray(x if x.dtype == np.uint8 else x.astype(np.float32, copy=False)))


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether (samples, a, b, c) are images whose last dimension counts the channels: 1 to 4, where the first one does not."""
    return (shape[-1] in (1, 3) and shape[1] not in (1, 3)) or (shape[-1] in (2, 4) and min(shape[1:3]) > 4)


def check_values(pieces: Iterable[tuple[np.ndarray, Tensor]], where: str) -> None:
    """Refuse NaN and infinity, and images out of [0, 1].

    Args:
        pieces: of an array, each as it was and as input.
        where: the array's place, for the error.
    """
    bad, low, high, images = 0, math.inf, -math.inf, False
    for given, x in pieces:
        images = x.ndim == 4
        bad += not_finite(given if images else x.numpy())
        if images and x.dtype != torch.uint8 and x.numel():
            low, high = min(low, float(x.min())), max(high, float(x.max()))
    refuse_not_finite(bad, where)
    if low < 0 or high > 1:
        raise RecipeError(f"{where} holds images from {low:g} to {high:g}: give bytes, or numbers between 0 and 1")


def not_finite(x: np.ndarray) -> int:
    """How many numbers are NaN or infinite."""
    if not np.issubdtype(x.dtype, np.floating) or (finite := np.isfinite(x)).all():
        return 0
    return int((~finite).sum())


def check_finite(x: np.ndarray, where: str) -> None:
    """Refuse NaN and infinity."""
    refuse_not_finite(not_finite(x), where)


def refuse_not_finite(bad: int, where: str) -> None:
    """Refuse so many values that are none."""
    if bad:
        raise RecipeError(f"{where} holds {bad} values that are NaN or infinite: clean the data first")


def check_inputs(x: np.ndarray, where: str) -> None:
    """Refuse what is neither images nor features, or has no samples."""
    expect(x.dtype.kind in "fiub", where, "numbers", x.dtype)
    expect(x.ndim >= 2, where, "features (samples, features) or images (samples, height, width[, channels])", x.shape)
    expect(x.size > 0, where, "at least one sample", x.shape)


def as_labels(y: np.ndarray, where: str, names: np.ndarray | None = None, ignored: int | None = None) -> Tensor:
    """Targets as class numbers 0, 1, …, one a sample or one a place of it, or as floats; text becomes the place among the sorted
    `names` of all splits.

    Labels that the loss leaves out, `ignored`, may be any number.
    """
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind != "f":
        y = y[:, 0]
    if 0 in y.shape[1:] or y.ndim == 0 or (y.ndim > 2 and y.dtype.kind == "f"):
        raise RecipeError(
            f"{where} must have one value a sample, labels (samples, *places) such as class maps, or floats (samples, columns); got an "
            f"array of {y.dtype} of shape {y.shape}"
        )
    check_finite(y, where)
    if y.dtype.kind in "US":
        y = as_text(y)
        if (empty := np.isin(np.char.strip(y), NO_LABEL)).any():
            place = int(empty.argmax())
            word = str(y.flat[place]).strip()
            raise RecipeError(
                f"{where} has no label{f' ({word})' if word else ''} in {int(empty.sum())} of {y.size} places, such as number {place} (from 0): "
                f"leave these samples out{f', or give a class that is called {word} another name' if word else ''}"
            )
        y = np.searchsorted(np.unique(y) if names is None else names, y)
    if y.dtype.kind == "f":  # of one column or several
        with np.errstate(over="ignore"):
            numbers = y.astype(np.float32)
        check_finite(numbers, where)
        return torch.from_numpy(numbers)
    if y.dtype.kind not in "iub":
        raise RecipeError(f"{where} must hold numbers or names, got {y.dtype}")
    if y.dtype.kind == "b" and y.ndim == 2:  # several labels a sample
        return torch.from_numpy(np.ascontiguousarray(y))
    y = y.astype(np.int64)
    classes = y if ignored is None else y[y != ignored]
    if classes.size and (classes.min() < 0 or classes.max() >= max(1000, len(y))):
        fix = "; to leave samples out take a loss with ignore_index, as torch's, or drop these samples" if y.min() < 0 else ""
        raise RecipeError(
            f"{where} must hold class numbers 0, 1, …; they reach from {classes.min()} to {classes.max()}, out of range{fix}"
        )
    return torch.from_numpy(y)


def as_text(y: np.ndarray) -> np.ndarray:
    """Text as such, where it is kept as bytes; those that are no UTF-8 by their numbers, so that no two become one."""
    return np.char.decode(y, "utf-8", "backslashreplace") if y.dtype.kind == "S" else y


def as_several_labels(y: np.ndarray, where: str) -> Tensor:
    """Which of several labels each sample has, truth values (samples, labels), of numbers 0 and 1 or truth values.

    Raises:
        RecipeError: another shape, other numbers.
    """
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "fiub":
        raise RecipeError(
            f"{where} must have a column for each of at least two labels (data.task=multilabel), numbers 0 and 1 (samples, labels); got an "
            f"array of {y.dtype} of shape {y.shape}"
        )
    if (other := y[(y != 0) & (y != 1)]).size:
        raise RecipeError(
            f"{where} must hold 0 and 1 alone, whether a sample has a label (data.task=multilabel); got {other[0]}: for numbers or "
            f"class maps leave data.task out"
        )
    return torch.from_numpy(np.ascontiguousarray(y.astype(bool)))


def as_weights(weights: np.ndarray, where: str) -> Tensor:
    """What each sample counts, (samples,) floats of 32 bits.

    Raises:
        RecipeError: another shape, no numbers, numbers below 0, NaN or infinite.
    """
    expect(weights.dtype.kind in "fiub", where, "numbers", weights.dtype)
    expect(weights.ndim == 1, where, "one weight a sample, (samples,)", weights.shape)
    with np.errstate(over="ignore"):
        found = weights.astype(np.float32)
    for row in np.flatnonzero(~np.isfinite(found) | (found < 0))[:1]:
        raise RecipeError(f"{where}, sample {row}: a weight must be a finite number ≥ 0 of 32 bits, got {weights[row]:g}")
    return torch.from_numpy(found)


def check_several_classes(train: Source, ignored: int | None = None, after: str = "") -> None:
    """Refuse targets of one class, from which no model can learn to tell classes apart.

    Args:
        train: what is trained on.
        ignored: a label that the loss leaves out; None: there is none.
        after: what has left these samples, in words: ", after the split by data.time".
    """
    for name, given in train.labels.items():
        target = known_labels(given, ignored)
        if len(given) and not len(target):
            raise RecipeError(
                f"all {len(given)} training labels{f' of {name}' if name else ''} are {ignored}{after}, which the loss ignores"
            )
        if are_several_labels(target) and len(target) and bool((target == target[0]).all()):
            raise RecipeError(
                f"all {len(target)} training samples have the same labels{f' of {name}' if name else ''}{after}: there is nothing to tell apart"
            )
        if not target.is_floating_point() and len(target) > 1 and bool((target == target.flatten()[0]).all()):
            raise RecipeError(
                f"all {len(target)} training labels{f' of {name}' if name else ''} are of one class, "
                f"{int(target.flatten()[0])}{after}: there is nothing to tell apart; to predict a number give targets as floats"
            )


def check_some_weight(train: Source) -> None:
    """Refuse training samples none of which counts."""
    if train.weight is not None and not bool((train.weight > 0).any()):
        raise RecipeError(f"data.weights: all {len(train)} training samples have the weight 0: there is nothing to learn from")


def check_classes(train: Source, test: Source, ignored: int | None = None) -> None:
    """Refuse a test split with targets that training cannot know."""
    for name, given in train.labels.items():
        target, other = known_labels(given, ignored), known_labels(test.labels[name], ignored)
        if target.is_floating_point() != other.is_floating_point() or (target.dtype == torch.bool) != (
            other.dtype == torch.bool
        ):
            raise RecipeError(f"the targets {name} of training and test differ in kind: {target.dtype} and {other.dtype}")
        if not target.is_floating_point() and len(other) and int(other.max()) > int(target.max()):
            raise RecipeError(
                f"test labels{f' of {name}' if name else ''} are out of range: class {int(other.max())} is in the test split, "
                f"but training knows classes 0 to {int(target.max())} only"
            )
    if not alike(train.shape, test.shape):
        shapes = [described(split.shape) for split in (train, test)]
        raise RecipeError(f"samples of training and test differ in shape: {shapes[0]} and {shapes[1]}")
    for name, target in train.labels.items():
        if target.shape[1:] != test.labels[name].shape[1:]:
            shapes = [str(tuple(split.labels[name].shape[1:])) for split in (train, test)]
            raise RecipeError(f"the targets {name} of training and test differ in shape: {shapes[0]} and {shapes[1]} a sample")


def same_length(named: Sequence[tuple[str, Any]], where: str) -> None:
    """Refuse inputs and targets of different lengths, and a single number in the place of an array."""
    for name, array in named:
        expect(array.ndim > 0, f"{where}: {name}", "an array with one entry a sample", array)
    if len({len(array) for _, array in named}) > 1:
        sizes = ", ".join(f"{name} has {len(array)}" for name, array in named)
        raise RecipeError(f"{where}: arrays differ in length: {sizes}")
