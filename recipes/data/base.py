"""Data kept in memory as tensors, and the loaders that take batches from it by index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from sklearn.model_selection import train_test_split
from torch import Tensor

from plugins.base import RecipeError, Setting, Task, derive_seed, expect, expect_count
from recipes.data.targets import expect_labels, expect_meant, kind_of

Sample = tuple[Tensor, dict[str, Tensor]]


@dataclass
class Split:
    """Inputs (samples, *shape) and one target tensor a task."""

    x: Tensor
    targets: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Split:
        return Split(self.x[index], {task: target[index] for task, target in self.targets.items()})

    def __add__(self, other: Split) -> Split:
        return Split(
            torch.cat([self.x, other.x]),
            {task: torch.cat([target, other.targets[task]]) for task, target in self.targets.items()},
        )

    def to(self, device: torch.device) -> Split:
        """The split on a device: the same object where it is there already."""
        if self.x.device == device:
            return self
        return Split(self.x.to(device), {task: target.to(device) for task, target in self.targets.items()})


class Data:
    """A data set in three disjoint splits.

    A subclass defines `load()`, which returns the training samples and, where the data set has one, its test split; what
    is missing is split off, stratified by the first task's classes, by a seed of its own: the same for all techniques and
    all seeds of training, so that members of an ensemble or seeds of a comparison never see each other's test samples.

    Args:
        batch_size: samples in a step over all devices, or "full" for all of them.
        validation: share of the training samples, in (0, 1), that is held out to choose the model.
        test: share of all samples, in (0, 1), that is held out for the test, where the data set has no test split.
        split_seed: seed of both splits.
        standardize_targets: whether a regression is learned with mean 0 and deviation 1 (`recipes/engine/units.py`).
    """

    def __init__(
        self,
        batch_size: int | str = 32,
        validation: float = 0.1,
        test: float = 0.2,
        split_seed: int = 0,
        standardize_targets: bool = True,
    ) -> None:
        if batch_size != "full":
            expect(isinstance(batch_size, int), "data.batch_size", 'a whole number ≥ 1 or "full"', batch_size)
            expect_count("data.batch_size", batch_size)  # type: ignore[arg-type]
        for name, share in (("data.validation", validation), ("data.test", test)):
            expect(isinstance(share, float) and 0 < share < 1, name, "a share between 0 and 1", share)
        self.batch_size, self.validation, self.test, self.split_seed = batch_size, validation, test, split_seed
        expect(isinstance(standardize_targets, bool), "data.standardize_targets", "true or false", standardize_targets)
        self.standardize_targets = standardize_targets
        self.splits: dict[str, Split] = {}
        self.content: str | None = None  # a hash of all samples and targets, however they are split
        self.class_names: dict[str, tuple[str, ...]] = {}  # by task, where classes are given as text

    def load(self) -> tuple[Split, Split | None]:
        """The training samples, and the test split if the data set has one."""
        raise NotImplementedError

    def setup(self) -> None:
        """Load and split; a second call does nothing."""
        if self.splits:
            return
        self._split_up(*self._loaded())

    def _loaded(self) -> tuple[Split, Split | None]:
        train, test = self.load()
        for name, target in train.targets.items():
            expect_meant(name, target, "store labels as whole numbers, or the numbers of a regression as floats (samples, 1)")
        for split in (train, test) if test is not None else (train,):
            for name, target in split.targets.items():
                expect_labels(name, target, len(self.class_names.get(name, ())) or None)
        self.content = fingerprint({"": train} if test is None else {"": train, "test": test})
        return train, test

    def _split_up(self, train: Split, test: Split | None) -> None:
        check_several_classes(train)
        if test is None:
            train, test = self._divide(train, self.test, "test")
        else:
            check_classes(train, test)
        train, validation = self._divide(train, self.validation, "validation")
        self.splits = {"train": train, "val": validation, "test": test}

    def setup_test(self, seen: str | None, content: str | None) -> str:
        """Load what a trained model is tested on, as the split `test`; returns in words which samples these are.

        Of the data that it was trained on, these are the samples of the test split. Of other data they are the test split
        that the data brings along, or all samples: none of them was held out from anything.

        Args:
            seen: the fingerprint of the splits that the model was trained with; None where the run does not tell, and these are they;
                empty where it does not tell, and they need not be.
            content: the same of all samples, however they are split.

        Raises:
            RecipeError: it is the data that the model was trained on, split in another way.
        """
        train, test = self._loaded()
        if content is None or content == self.content:
            try:
                self._split_up(train, test)
            except RecipeError:
                if seen is None or content is not None:
                    raise
            else:
                if seen is None or seen == self.fingerprint:
                    return "the test split"
                if content is not None:
                    raise RecipeError(
                        "this is the data that the run was trained on, split in another way: the test would have samples that "
                        "were trained on; leave the words about its split out"
                    )
        self.splits = {"test": train if test is None else test}
        if seen == "" and test is None:
            return "all of them; the run does not tell what it was trained on, which may be among these"
        return "all of them, other data than the run was trained on" if test is None else "the test split of other data"

    def _divide(self, split: Split, share: float, name: str) -> tuple[Split, Split]:
        labels = next(iter(split.targets.values()))
        stratify = None
        if not labels.is_floating_point():
            _, counts = labels.unique(return_counts=True)
            # where a class cannot be on both sides the split is drawn without stratification
            if counts.min() >= 2 and len(counts) <= min(share, 1 - share) * len(labels):
                stratify = labels.numpy()
        try:
            kept, held_out = train_test_split(
                np.arange(len(split)), test_size=share, random_state=self.split_seed, stratify=stratify
            )
        except ValueError as error:
            raise RecipeError(f"data.{name}={share} does not split {len(split)} samples: {error}") from None
        return split[torch.from_numpy(np.sort(kept))], split[torch.from_numpy(np.sort(held_out))]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all samples and targets, by which a run that goes on knows its data wherever that lies."""
        return fingerprint(self.splits)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(next(iter(self.splits.values())).x.shape[1:])

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The targets to predict."""
        tasks = []
        for name in next(iter(self.splits.values())).targets:
            values = [split.targets[name] for split in self.splits.values()]
            if kind_of(name, values[0]) == "regression":
                tasks.append(Task(name, "regression", values[0].shape[1] if values[0].ndim == 2 else 1))
            else:
                names = self.class_names.get(name, ())
                outputs = len(names) or 1 + max(int(value.max()) for value in values)
                tasks.append(Task(name, "classification", outputs, names))
        return tuple(tasks)

    def setting(self, seed: int, load_run: Callable[[str], Any] | None = None) -> Setting:
        """What plugins may know of the data."""
        train = self.splits["train"]
        return Setting(self.shape, self.tasks, seed, lambda: pieces(train.x), load_run, lambda: iter([train.targets]))


def fingerprint(splits: Mapping[str, Split]) -> str:
    """A hash of all samples and targets, split by split."""
    found = hashlib.blake2b(digest_size=16)
    for name, split in splits.items():
        for part, values in {"x": split.x, **{f"y {task}": target for task, target in split.targets.items()}}.items():
            found.update(f"{name} {part} {values.dtype} {tuple(values.shape)}".encode())
            found.update(values.contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def pieces(x: Tensor, size: int = 4096) -> Iterator[Tensor]:
    """Raw inputs piece by piece, as the model gets them: images in [0, 1]."""
    for piece in x.split(size):
        yield piece.float().div_(255) if piece.dtype == torch.uint8 else piece.float()


class StepLoader:
    """Batches of one optimizer step each, by index, in an order that is a pure function of seed and epoch.

    The order goes on from `position()`, the number of steps done, so a resumed run sees what the interrupted one would
    have seen. A step's samples are cut into `parts` × ranks equal pieces; with every number of ranks and parts that gives
    the same product, the pieces are the same. What is left at an epoch's end and fills no step is left out. With
    `repeats`, so many steps in a row get the same samples, and a pass over the data takes so many epochs.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int | str,
        seed: int,
        parts: int = 1,
        position: Callable[[], int] = lambda: 0,
        repeats: int = 1,
        world: int = 1,
    ) -> None:
        self.split, self.seed, self.parts, self.position, self.repeats = split, seed, parts, position, repeats
        wanted = len(split) if batch_size == "full" else int(batch_size) * parts
        self.step_size = min(wanted, len(split) - len(split) % (parts * world))
        if self.step_size == 0:
            raise RecipeError(f"{len(split)} training samples cannot be cut into {world} devices × {parts} parts: use fewer")
        self._expect_equal_pieces(world)
        self.device: torch.device = split.x.device

    def __len__(self) -> int:
        return len(self.split) // self.step_size

    def __iter__(self) -> Iterator[Sample]:
        self.split = self.split.to(self.device)
        x, targets = self.split.x, self.split.targets
        first, steps, known = self.position(), len(self), -1
        for step in range(first, first - first % steps + steps):
            epoch, batch = divmod(step // self.repeats, steps)
            if epoch != known:
                order, known = self.order(epoch), epoch
            index = order[batch]
            # several times faster than x[index] where a sample is small
            yield x.index_select(0, index), {task: target.index_select(0, index) for task, target in targets.items()}

    def order(self, epoch: int) -> Tensor:
        """Indices (steps, samples of this rank in a step) of an epoch, on the device."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._expect_equal_pieces(world)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        order = torch.randperm(len(self.split), generator=generator)[: len(self) * self.step_size]
        order = order.view(len(self), self.parts, world, -1)[:, :, rank].reshape(len(self), -1)
        return order.to(self.device)

    def _expect_equal_pieces(self, world: int) -> None:
        if self.step_size % (world * self.parts):
            below = self.step_size // self.parts // world * world
            fits = " or ".join(f"data.batch_size={size}" for size in (below, below + world) if size)
            raise RecipeError(
                f"a step of {self.step_size} samples cannot be cut into {world} devices × {self.parts} parts: type {fits}"
            )

    def evaluation_batches(self, limit: int) -> Iterator[Sample]:
        """Clean training samples, the first `limit` of a fixed random order, for metrics in evaluation mode."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "evaluate"))
        index = torch.randperm(len(self.split), generator=generator)[:limit].to(self.split.x.device)
        yield from EvaluationLoader(self.split[index])

    def state_dict(self) -> dict[str, int]:
        """Nothing: the position is the number of steps done, which the checkpoint has."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to load."""


class EvaluationLoader:
    """A whole split in order, in batches whose sizes differ by at most one, an equal number of them on each rank."""

    def __init__(self, split: Split, batch_size: int = 500) -> None:
        self.split, self.batch_size = split, batch_size
        self.device: torch.device = split.x.device

    def __len__(self) -> int:
        return max(1, -(-len(self.split) // self.batch_size))

    def __iter__(self) -> Iterator[Sample]:
        self.split = self.split.to(self.device)
        for batch in range(len(self)):
            which = self.positions(batch)
            piece = slice(which.start, which.stop)
            yield self.split.x[piece], {task: target[piece] for task, target in self.split.targets.items()}

    def positions(self, batch: int) -> range:
        """Which samples of the split a batch of this rank has."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        count, piece = len(self) * world, batch * world + rank
        return range(len(self.split) * piece // count, len(self.split) * (piece + 1) // count)


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


def as_labels(y: np.ndarray, where: str, names: np.ndarray | None = None) -> Tensor:
    """Targets as class numbers 0, 1, … or as floats; text becomes the place among the sorted `names` of all splits."""
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
    if y.size and (y.min() < 0 or y.max() >= max(1000, len(y))):
        ignored = "; labels to be ignored are not supported yet, drop these samples" if y.min() < 0 else ""
        raise RecipeError(
            f"{where} must hold class numbers 0, 1, …; they reach from {y.min()} to {y.max()}, out of range{ignored}"
        )
    return torch.from_numpy(y)


def check_several_classes(train: Split) -> None:
    """Refuse targets of one class, from which no model can learn to tell classes apart."""
    for name, target in train.targets.items():
        if not target.is_floating_point() and len(target) > 1 and bool((target == target.flatten()[0]).all()):
            raise RecipeError(
                f"all {len(target)} training labels{f' of {name}' if name else ''} are of one class, "
                f"{int(target.flatten()[0])}: there is nothing to tell apart; to predict a number give targets as floats"
            )


def check_classes(train: Split, test: Split) -> None:
    """Refuse a test split with targets that training cannot know."""
    for name, target in train.targets.items():
        other = test.targets[name]
        if target.is_floating_point() != other.is_floating_point():
            raise RecipeError(f"the targets {name} of training and test differ in kind: {target.dtype} and {other.dtype}")
        if not target.is_floating_point() and int(other.max()) > int(target.max()):
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
