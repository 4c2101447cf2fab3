"""Data of a user's own class: a data set of torch's, or a LightningDataModule, whose samples are taken by index."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, default_collate

from plugins.base import RecipeError, derive_seed, expect_count
from recipes.config.errors import of_own_code
from recipes.data.base import Data
from recipes.data.drawing import drawn_alike
from recipes.data.samples import Part, Samples, refuse_stream, shared
from recipes.data.source import Source
from recipes.store.files import hold

PATIENCE = 6 * 3600.0  # seconds for another process that prepares data
ON_BATCHES = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")  # hooks that nothing calls
OVERLAP = 0.1  # share of the test split that may be among the other samples, where few of these are equal
TRAIN, VALIDATION, TEST = "train_dataloader", "val_dataloader", "test_dataloader"


class SamplesData(Data):
    """A data set with `__getitem__`, which gives pairs (input, target), and `__len__`.

    All samples are looked at once at the start, then made again whenever they are needed. What is missing is split off.

    Args:
        make: gives the data set.
        workers: processes that make samples ahead, ≥ 0.

    Raises:
        RecipeError: it gives no pairs, shapes that differ, other samples each time, or raises.
    """

    def __init__(self, make: Callable[[], Any], workers: int = 0, **split: Any) -> None:
        super().__init__(**split)
        expect_count("data.workers", workers, least=0)
        self.make, self.workers = make, workers

    def load(self) -> tuple[Source, Source | None]:
        """All samples."""
        with drawn_alike(self.split_seed):
            dataset = self.make()
        samples = Samples([Part(dataset, default_collate)], type(dataset).__name__, self.workers)
        self.class_names = names_of(dataset, samples)
        return samples, None

    def load_inputs(self) -> Source:
        """All samples, with their targets."""
        return self.load()[0]


class LoadersData(Data):
    """The data sets behind the loaders of a LightningDataModule; which samples a step has is decided as for all other data.

    `val_dataloader` and `test_dataloader` give these splits; what is missing is split off. What the module draws follows from
    `data.split_seed`: `setup` draws the same in every process and for every stage, so that a split that it draws is one.

    Args:
        make: gives the LightningDataModule.
        batch_size: samples in a step, or "full"; None: as many as its loader has.
        workers: processes that make samples ahead, ≥ 0; None: as many as its loader has.

    Raises:
        RecipeError: its loaders have an order or batches of their own, streams, what no sample may be, or test samples that are trained on.
    """

    def __init__(
        self, make: Callable[[], Any], batch_size: int | str | None = None, workers: int | None = None, **split: Any
    ) -> None:
        super().__init__(**(split if batch_size is None else {**split, "batch_size": batch_size}))
        if workers is not None:
            expect_count("data.workers", workers, least=0)
        self.make, self.workers, self._its_size = make, workers, batch_size is None
        self._validation = 0  # samples of a split of its own, the last of those that are not of the test

    def load(self) -> tuple[Source, Source | None]:
        """The samples of all its loaders."""
        with drawn_alike(self.split_seed):
            module = self.make()
        name = type(module).__name__
        if hooks := [hook for hook in ON_BATCHES if _defines(module, hook)]:
            raise RecipeError(
                f"{name} defines {hooks[0]}, which is not called here: do it in __getitem__, or, where it is random, by +augmentation="
            )
        try:
            with drawn_alike(self.split_seed):
                prepare(module)
            loaders = self._loaders(module, "fit", (TRAIN, VALIDATION))
            if _defines(module, TEST):
                loaders |= self._loaders(module, "test", (TEST,))
        except RecipeError:
            raise
        except Exception as error:
            raise RecipeError(f"{name} gives no loaders: {of_own_code(error)}") from None
        if TRAIN not in loaders:
            raise RecipeError(f"{name} has no {TRAIN}: define it")
        train = loaders[TRAIN]
        if self._its_size and train.batch_size:
            self.batch_size = int(train.batch_size)
        workers = int(train.num_workers) if self.workers is None else self.workers
        parts = {part: Part(loader.dataset, loader.collate_fn) for part, loader in loaders.items()}
        samples = Samples([parts[part] for part in (TRAIN, VALIDATION) if part in parts], name, workers)
        self._validation = len(parts[VALIDATION].dataset) if VALIDATION in parts else 0
        self.class_names = names_of(train.dataset, samples)
        test = Samples([parts[TEST]], name, workers) if TEST in parts else None
        if test is not None and (count := shared(samples, test)) > OVERLAP * len(test):
            raise RecipeError(
                f"{name}: {count} of the {len(test)} samples of {TEST} are trained on or validated with: give it samples of its "
                f"own, or leave it out, for which samples are split off"
            )
        return samples, test

    def _loaders(self, module: Any, stage: str, parts: Sequence[str]) -> dict[str, Any]:
        """The loaders that the module has of these, once it is set up."""
        with drawn_alike(self.split_seed):
            module.setup(stage)
        found = {}
        for part in parts:
            with drawn_alike(derive_seed(self.split_seed, part)):
                found[part] = loader_of(module, part)
        return {part: loader for part, loader in found.items() if loader is not None}

    def load_inputs(self) -> Source:
        """The samples of the test split where it has one, else all; with their targets."""
        samples, test = self.load()
        self.inputs_of_test = test is not None
        return samples if test is None else test

    def _fold(self, samples: Source) -> tuple[Source, Source, Tensor]:
        if not self._validation:
            return super()._fold(samples)
        first = len(samples) - self._validation
        kept, test, places = super()._fold(samples[:first])
        return kept + samples[first:], test, places

    def _divide(self, split: Source, share: float, name: str) -> tuple[Source, Source, Tensor]:
        if not self._validation:
            return super()._divide(split, share, name)
        first = len(split) - self._validation
        if name == "validation":
            return split[:first], split[first:], torch.arange(first, len(split))
        kept, test, places = super()._divide(split[:first], share, name)  # of what is not validated with
        return kept + split[first:], test, places


def prepare(module: Any) -> None:
    """Have a LightningDataModule prepare its data, such as by a download, one process of this machine after the other."""
    if _defines(module, "prepare_data"):
        with one_at_a_time():
            module.prepare_data()


def one_at_a_time(doing: str = "prepares") -> AbstractContextManager[None]:
    """What one process of a user on this machine does with data after the other; `doing` one thing may hold for another."""
    user, kind = getattr(os, "getuid", lambda: 0)(), "" if doing == "prepares" else f"-{doing}"
    return hold(Path(tempfile.gettempdir()) / f"lightning-recipes-{user}{kind}.lock", f"{doing} data", patience=PATIENCE)


def loader_of(module: Any, part: str) -> Any:
    """A loader of a LightningDataModule, whose samples can be taken by index; None where it has none.

    Raises:
        RecipeError: several loaders, another kind of loader, an order or batches of its own, a stream.
    """
    loader, name = getattr(module, part)() if _defines(module, part) else None, type(module).__name__
    if loader is None or (isinstance(loader, list | tuple | dict) and not loader):
        return None
    if isinstance(loader, list | tuple) and len(loader) == 1:
        loader = loader[0]
    if not isinstance(loader, DataLoader):
        raise RecipeError(f"{name}.{part}: expected one DataLoader, got a {type(loader).__name__}: put its samples into one")
    refuse_stream(loader.dataset, f"{name}.{part} loads")
    sampler = loader.sampler
    own = not isinstance(sampler, RandomSampler | SequentialSampler) or getattr(sampler, "replacement", False)
    if own or type(loader.batch_sampler) is not BatchSampler:
        which = type(sampler if own else loader.batch_sampler).__name__
        raise RecipeError(
            f"{name}.{part} has an order of its own, by a {which}: samples are taken in one that follows from the seed, so that runs can be "
            f"resumed and shared by processes; leave it out, or take +sampling=balanced for rare classes"
        )
    return loader


def _defines(module: Any, part: str) -> bool:
    return getattr(type(module), part, None) is not getattr(L.LightningDataModule, part)


def names_of(dataset: Any, samples: Samples) -> dict[str, tuple[str, ...]]:
    """The names of the classes, where a data set has them as its attribute `classes`, as those of torchvision do."""
    names: Any = getattr(dataset, "classes", None)
    labels = samples.labels.get("")
    fits = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if (
        not fits
        or labels is None
        or labels.is_floating_point()
        or labels.dtype == torch.bool
        or int(labels.max()) >= len(names)
    ):
        return {}
    return {"": tuple(names)}
