"""A data set: loaded, looked at and cut into its splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from plugins.base import RecipeError, Setting, Task, expect, expect_count
from plugins.inputs import joined
from recipes.data.arrays import check_classes, check_several_classes, check_some_weight
from recipes.data.checks import of_load
from recipes.data.held_out import fold_of, share_of
from recipes.data.source import Source
from recipes.data.split import fingerprint, fingerprint_of_weights, nested, pieces, samples_of, without
from recipes.data.targets import MULTILABEL, expect_labels, expect_meant, kind_of, known_labels, places_of


def _as_it_is(task: Task) -> Task:
    return task


class Data:
    """A data set in three disjoint splits.

    A subclass defines `load()`, which returns the training samples and, where the data set has one, its test split: a
    :class:`recipes.data.split.Split` in memory, or any other :class:`recipes.data.source.Source`. What is missing is split off,
    stratified by the first task's classes, by a seed of its own: the same for all techniques and all seeds of training, so that
    members of an ensemble or seeds of a comparison never see each other's test samples.

    Args:
        batch_size: samples in a step over all devices, or "full" for all of them.
        eval_batch_size: samples that an evaluation looks at together, ≥ 1; None: 500, or as many as have 64 MiB as floats. Where the memory
            does not hold them they are halved.
        validation: share of the training samples, in (0, 1), that is held out to choose the model.
        test: share of all samples, in (0, 1), that is held out for the test, where the data set has no test split.
        split_seed: seed of both splits, in [0, 2147483647].
        folds: into how many folds all samples are cut, ≥ 2, of which one is the test split and no other test split is made; None: into none.
        fold: which of them is the test split, from 0 to folds − 1.
        train_samples: how many training samples are kept, ≥ 1, of each class its share; fewer are a part of more; None: all.
        standardize_targets: whether a regression is learned with mean 0 and deviation 1 (`recipes/engine/units.py`).

    Attributes:
        encoded: what `encode` makes of samples by what was learned, in words.
        takes_arrays: whether inputs can be given as arrays although something was learned of the data.
    """

    encoded: ClassVar[str] = "columns as they are encoded"
    takes_arrays: ClassVar[bool] = False

    def __init__(
        self,
        batch_size: int | str = 32,
        validation: float = 0.1,
        test: float = 0.2,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        train_samples: int | None = None,
        standardize_targets: bool = True,
        eval_batch_size: int | None = None,
    ) -> None:
        if batch_size != "full":
            expect(isinstance(batch_size, int), "data.batch_size", 'a whole number ≥ 1 or "full"', batch_size)
            expect_count("data.batch_size", batch_size)  # type: ignore[arg-type]
        for name, share in (("data.validation", validation), ("data.test", test)):
            expect(isinstance(share, float) and 0 < share < 1, name, "a share between 0 and 1", share)
        fits = type(split_seed) is int and split_seed in range(2**31)  # twice of it, too, is in the 32 bits of scikit-learn
        expect(fits, "data.split_seed", "a whole number from 0 to 2147483647", split_seed)
        self.batch_size, self.validation, self.test, self.split_seed = batch_size, validation, test, split_seed
        expect(isinstance(standardize_targets, bool), "data.standardize_targets", "true or false", standardize_targets)
        self.standardize_targets = standardize_targets
        if folds is not None:
            expect_count("data.folds", folds, least=2)
        expect_count("data.fold", fold, least=0)
        self.folds, self.fold = folds, fold
        if train_samples is not None:
            expect_count("data.train_samples", train_samples)
        self.train_samples = train_samples
        if eval_batch_size is not None:
            expect_count("data.eval_batch_size", eval_batch_size)
        self.eval_batch_size = eval_batch_size
        self.splits: dict[str, Source] = {}
        self.held_out: Tensor | None = None  # which of the samples are the test split, where it was split off
        self.content: str | None = None  # a hash of all samples and targets, however they are split
        self.class_names: dict[str, tuple[str, ...]] = {}  # by task, where classes are given as text
        self.refine: Callable[[Task], Task] = _as_it_is  # what the loss says of a task, such as the quantiles of each number
        self.ignored: int | None = None  # the label of samples that the loss leaves out, which names no class
        self.inputs_of_test = False  # whether `load_inputs` gave those of the test split that the data set has

    def load(self) -> tuple[Source, Source | None]:
        """The training samples, and the test split if the data set has one."""
        raise NotImplementedError

    def learn(self, train: Source) -> None:
        """Learn encodings, such as the numbers of categories and what stands for missing values, of the training split alone.

        Args:
            train: what is trained on, as loaded: the validation and test samples are in no statistic.
        """

    def encode(self, split: Source) -> Source:
        """A split as the model takes it, by what was learned."""
        return split

    def state(self) -> dict[str, Any]:
        """What `learn` has learned, as plain values and tensors; a run keeps it, and its model is used with it only."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what another run has learned, before anything is loaded; `learn` is not called then.

        Raises:
            RecipeError: it is nothing that this kind of data has learned.
        """

    def load_inputs(self) -> Source:
        """All samples for a prediction, with no or empty labels: targets need not be there.

        Raises:
            RecipeError: they do not fit what the run was trained on, or this kind of data has no inputs by themselves.
        """
        raise RecipeError(f"{type(self).__name__} cannot be predicted without its targets: define load_inputs()")

    def ids(self) -> list[str]:
        """A name for each sample that was loaded, of a test split where it has one, such as its file; empty: their number says enough."""
        return []

    def setup(self) -> None:
        """Load and split; a second call does nothing."""
        if self.splits:
            return
        self._split_up(*self._loaded())
        if not self.state():
            self.learn(self.splits["train"])
        self._encode()

    def _loaded(self) -> tuple[Source, Source | None]:
        train, test = of_load(self.load, type(self), self.split_seed)
        for name, target in train.labels.items():
            expect_meant(name, target, "store labels as whole numbers, or the numbers of a regression as floats (samples, 1)")
        for split in (train, test) if test is not None else (train,):
            for name, target in split.labels.items():
                expect_labels(name, target, len(self.class_names.get(name, ())) or None, self.ignored)
        self.content = fingerprint({"": train} if test is None else {"": train, "test": test})
        return train, test

    def _split_up(self, train: Source, test: Source | None) -> None:
        check_several_classes(train, self.ignored)
        if self.fold and self.fold >= (self.folds or 1):
            raise RecipeError(
                f"data.fold must be below data.folds, which is {self.folds or 'null'}, got {self.fold}: the folds are numbered from 0"
            )
        if test is None:
            divided = self._fold(train) if self.folds else self._divide(train, self.test, "test")
            train, test, self.held_out = divided
        elif self.folds:
            raise RecipeError(
                "data.folds: the data set has a test split of its own, which is the same for everybody: leave folds out"
            )
        else:
            check_classes(train, test, self.ignored)
        train, validation, _ = self._divide(train, self.validation, "validation")
        train = self._fewer(train)
        by = self._split_by(train)
        check_several_classes(train, self.ignored, f", after the split{f' by {by}' if by else ''}")
        check_some_weight(train)
        self.splits = {"train": train, "val": validation, "test": test}

    def _encode(self) -> None:
        self.splits = {name: self.encode(split) for name, split in self.splits.items()}

    def setup_test(self, seen: str | None, content: str | None, shown: Sequence[str] = ()) -> str:
        """Load what a trained model is tested on, as the split `test`; returns in words which samples these are.

        Of the data that it was trained on, these are the samples of the test split. Of other data they are the test split
        that the data brings along, or all samples: none of them was held out from anything.

        Args:
            seen: the fingerprint of the splits that the model was trained with; None where the run does not tell, and these are they;
                empty where it does not tell, and they need not be.
            content: the same of all samples, however they are split.
            shown: parameters by which the data that the model was trained on becomes other samples; none where it is other data.

        Raises:
            RecipeError: it is the data that the model was trained on, split or shown in another way.
        """
        train, test = self._loaded()
        if content is None or content == self.content:
            try:
                self._split_up(train, test)
            except RecipeError:
                if seen is None or content is not None:
                    raise
            else:
                self._encode()
                if seen is None or samples_of(seen) == samples_of(self.fingerprint):  # a test does not ask for weights
                    return "the test split"
                if content is not None:
                    raise RecipeError(
                        "this is the data that the run was trained on, split in another way: the test would have samples that "
                        "were trained on; leave the words about its split out"
                    )
        if shown and test is None:
            raise RecipeError(
                f"this is the data that the run was trained on, with another {', '.join(f'data.{name}' for name in shown)}: none of these "
                f"samples was held out; leave that as it was, or name other data, such as data.path=OTHER"
            )
        self.splits = {"test": self.encode(train if test is None else test)}
        if seen == "" and test is None:
            return "all of them; the run does not tell what it was trained on, which may be among these"
        return "all of them, other data than the run was trained on" if test is None else "the test split of other data"

    def _fewer(self, train: Source) -> Source:
        """The training samples that are kept."""
        if self.train_samples is None:
            return train
        if self.train_samples > len(train):
            raise RecipeError(
                f"data.train_samples must be at most {len(train)}, the training samples there are, got {self.train_samples}"
            )
        labels = next(iter(train.labels.values()))
        return train[nested(labels, self.train_samples, self.split_seed)]

    def _split_by(self, train: Source) -> str:
        """What samples are split by, where they are not drawn one by one."""
        return "" if train.groups is None else "groups"

    def _fold(self, samples: Source) -> tuple[Source, Source, Tensor]:
        """All folds but one, and that one."""
        return without(samples, fold_of(samples, int(self.folds or 0), self.fold, self.split_seed))

    def _divide(self, split: Source, share: float, name: str) -> tuple[Source, Source, Tensor]:
        return without(split, share_of(split, share, self.split_seed, name))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all samples and targets, and of their weights, by which a run that goes on knows its data wherever that lies."""
        return "-".join(filter(None, (fingerprint(self.splits), fingerprint_of_weights(self.splits))))

    @property
    def shape(self) -> Any:
        """The shape of one sample; of whole numbers by name also the largest of all splits."""
        first, *others = (split.shape for split in self.splits.values())
        if not isinstance(first, dict):
            return first
        return joined(first, others)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The targets to predict."""
        tasks = []
        for name in next(iter(self.splits.values())).labels:
            values = [split.labels[name] for split in self.splits.values()]
            if (kind := kind_of(name, values[0])) == "regression":
                task = self.refine(Task(name, kind, values[0].shape[1] if values[0].ndim == 2 else 1))
                tasks.append(replace(task, outputs=task.outputs * max(1, len(task.quantiles))))
            elif kind == MULTILABEL:
                tasks.append(self.refine(Task(name, kind, values[0].shape[1], self.class_names.get(name, ()))))
            else:
                names = self.class_names.get(name, ())
                known = [part for value in values if len(part := known_labels(value, self.ignored))]
                outputs = len(names) or 1 + max((int(part.max()) for part in known), default=0)
                tasks.append(Task(name, kind, outputs, names, places_of(values[0])))
        return tuple(tasks)

    def setting(self, seed: int, load_run: Callable[[str], Any] | None = None) -> Setting:
        """What plugins may know of the data."""
        train = self.splits["train"]
        may_ignore = self.ignored is not None and any(
            bool((target == self.ignored).any()) for split in self.splits.values() for target in split.labels.values()
        )
        setting = Setting(
            self.shape, self.tasks, seed, lambda: pieces(train), load_run, lambda: iter([train.labels]), may_ignore
        )
        return replace(setting, split=samples_of(self.fingerprint))
