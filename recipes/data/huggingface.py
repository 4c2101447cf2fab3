"""Data sets that the library `datasets` reads: parquet, csv, json, folders of images, Arrow's files, and names on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError, expect, expect_choice, expect_count
from recipes.data.arrays import as_labels, check_finite
from recipes.data.arrow import as_array, look_at_images, pieces
from recipes.data.arrow_source import ArrowSource, Pictures
from recipes.data.base import Data
from recipes.data.fetching import fetched
from recipes.data.hub import opened, parts_of
from recipes.data.images import Form, expect_form, one_size
from recipes.data.source import Source, ranges
from recipes.data.table_roles import names_of
from recipes.data.table_targets import CLASSIFICATION, REGRESSION

TASKS = (CLASSIFICATION, REGRESSION)
AHEAD = 2  # processes that decode images, where nothing else is asked for


class HuggingFaceData(Data):
    """Columns of a data set of Hugging Face's, which stays in its files and is read as it is needed.

    A column of inputs holds images, numbers, or lists of numbers of one length; several of one number each are features. Several columns
    of another kind are a mapping, such as tokens and a mask, which the model gets as a dict. Class labels keep their names; texts and
    whole numbers are classes, too, floats a regression. The splits train, validation and test are used where it has them; without test,
    validation is the test split, and what is missing is split off. Code of a data set is never run.

    Args:
        path: a folder or a file (parquet, csv, json, arrow), a name on the hub, or a `datasets.Dataset` or `DatasetDict`.
        config: name of a part of a data set on the hub that has several; None: the only one.
        input: name of the column to predict from, or a list of names.
        target: name of the column to predict, or a list of names: one task each.
        task: `classification` or `regression`, of all targets; None: texts and whole numbers are classes, other numbers a regression.
        size: pixels that each image is resized to (bilinear), one number or (height, width); None: all have one size.
        aspect: what becomes of an image of another aspect: `stretch`; `crop`: its middle; `pad`: all of it between black edges.
        channels: 1 (grey) or 3 (colours) of an image; None: 1 if all are grey.
        workers: processes that read ahead, ≥ 0; None: 2 for images, 0 for numbers.

    Raises:
        RecipeError: nothing there, no network, no such columns, a stream, cells that are empty or of another kind, several sizes without `size`.
    """

    def __init__(
        self,
        path: Any = None,
        config: str | None = None,
        input: str | Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
        task: str | None = None,
        size: int | Sequence[int] | None = None,
        aspect: str = "stretch",
        channels: int | None = None,
        workers: int | None = None,
        **split: Any,
    ) -> None:
        super().__init__(**split)
        expect(path is not None, "data.path", "a folder, a file or a name on the hub (data=huggingface data.path=FOLDER)", path)
        self.size, self.aspect, self.channels = expect_form(size, channels, aspect), aspect, channels
        if workers is not None:
            expect_count("data.workers", workers, least=0)
        if task is not None:
            expect_choice("data.task", task, list(TASKS))
        self.task = task
        self.path, self.config, self.workers = path, config, workers
        self.input, self.target = as_names("data.input", input), as_names("data.target", target)
        self.where = path if isinstance(path, str) else "the data set"
        self._validation = 0  # rows of a split of its own, the last of those that are not of the test

    def load(self) -> tuple[Source, Source | None]:
        """The data set's splits, looked at."""
        parts = opened(self.path, self.config)
        train, validation, test, left_out = parts_of(parts, self.where)
        inputs, targets = self._columns(train, "data.input", self.input), self._columns(train, "data.target", self.target)
        expect(not {*inputs} & {*targets}, "data.target", "columns that are no inputs", self.target)
        for name, other in parts.items():
            if name not in left_out and (missing := [each for each in (*inputs, *targets) if each not in other.features]):
                raise RecipeError(
                    f"{self.where}: the split {name} has no column {', '.join(missing)}, which train has: add it, or leave that split out"
                )
        tables = [self._joined(train, validation, [*inputs, *targets])]
        tables += [] if test is None else [self._joined(test, None, [*inputs, *targets])]
        self._validation = 0 if validation is None else len(validation)
        labels = self._labels(tables, targets)
        remark = f"; the split{'s' if len(left_out) > 1 else ''} {', '.join(left_out)} of it left out" if left_out else ""
        sources = self._sources(tables, inputs, labels, remark)
        return sources[0], sources[1] if test is not None else None

    def load_inputs(self) -> Source:
        """The columns of inputs alone; of a data set with a test split its test split."""
        train, _, test, _ = parts_of(opened(self.path, self.config), self.where)
        chosen, self.inputs_of_test = (train, False) if test is None else (test, True)
        inputs = self._columns(chosen, "data.input", self.input)
        if not len(chosen):
            raise RecipeError(f"{self.where} has no rows")
        return self._sources([self._joined(chosen, None, inputs)], inputs, [{}], "")[0]

    def _divide(self, split: Source, share: float, name: str) -> tuple[Source, Source, Tensor]:
        if name != "validation" or not self._validation:
            return super()._divide(split, share, name)
        first = len(split) - self._validation
        return split[:first], split[first:], torch.arange(first, len(split))

    def _columns(self, table: Any, key: str, given: str | Sequence[str] | None) -> list[str]:
        """The names of columns that are asked for."""
        there = ", ".join(f"{name} ({described(feature)})" for name, feature in table.features.items())
        if given is None:
            raise RecipeError(
                f"{key} must name a column of {self.where}, such as {key}=NAME, or several, [NAMES]; it has {there}"
            )
        names = [given] if isinstance(given, str) else list(given)
        if missing := [name for name in names if name not in table.features]:
            raise RecipeError(f"{key}: {self.where} has no column {', '.join(map(str, missing))}; it has {there}")
        return names

    def _joined(self, table: Any, further: Any, columns: Sequence[str]) -> Any:
        """Some columns of one or two splits as one table."""
        import datasets

        chosen = table.select_columns(list(columns))
        if further is not None:
            try:
                chosen = datasets.concatenate_datasets([chosen, further.select_columns(list(columns))])
            except (ValueError, TypeError) as error:
                raise RecipeError(f"{self.where}: columns of train and validation differ in kind: {error}") from None
        return chosen.with_format("arrow")

    def _labels(self, tables: Sequence[Any], targets: Sequence[str]) -> list[dict[str, Tensor]]:
        """The targets of each table, one tensor a task; names its classes."""
        labels: list[dict[str, Tensor]] = [{} for _ in tables]
        for name in targets:
            task, places = name if len(targets) > 1 else "", [f"{self.where}: column {name}"] * len(tables)
            if len(tables) > 1:
                places = [f"{place} of the split {part}" for place, part in zip(places, ("train", "test"), strict=True)]
            found = [
                as_asked(column_of(table, name, place), self.task, place) for table, place in zip(tables, places, strict=True)
            ]
            kinds = {"text" if y.dtype.kind == "U" else "numbers" for y in found}
            if len(kinds) > 1:
                raise RecipeError(
                    f"{self.where}: column {name} holds text in one split and numbers in another: give both the same"
                )
            text, names = None, classes_of(tables, name, self.where) if found[0].dtype.kind in "iub" else ()
            if kinds == {"text"}:
                text = np.unique(np.concatenate([y.ravel() for y in found]))
                names = tuple(map(str, text))
            if names:
                self.class_names[task] = names
            for into, y, place in zip(labels, found, places, strict=True):
                into[task] = as_labels(y, place, text, self.ignored)
        return labels

    def _sources(
        self, tables: Sequence[Any], inputs: Sequence[str], labels: Sequence[dict[str, Tensor]], remark: str
    ) -> list[ArrowSource]:
        """The tables as sources, whose images have one form."""
        import datasets

        features = tables[0].features
        of_images = [name for name in inputs if isinstance(features[name], datasets.Image)]
        if not of_images and (self.size or self.channels):
            raise RecipeError(f"data.size and data.channels are of images, and {', '.join(inputs)} holds none: leave them out")
        alone = isinstance(self.input, str) or all(isinstance(features[name], datasets.Value) for name in inputs)
        pictures: list[dict[str, Pictures]] = [{} for _ in tables]
        for name in of_images:
            where = f"{self.where}: column {name}"
            looked = [look_at_images(table.select_columns([name]), where) for table in tables]
            every = [(f"{where}, row {row}", look) for looks in looked for row, look in enumerate(looks)]
            size = self.size or one_size(every)
            channels = self.channels or (1 if all(look.grey for _, look in every) else 3)
            for known, looks in zip(pictures, looked, strict=True):
                known[name] = Pictures(looks, Form(size, channels, self.aspect))
        workers = (AHEAD if of_images else 0) if self.workers is None else self.workers
        told = f"{sum(map(len, tables)):,} rows are read as they are needed, by {workers or 'no'} processes of their own: data.workers"
        sources = [
            ArrowSource(
                table, inputs, not alone, targets, known, self.where, torch.arange(len(table)), None, workers, told + remark
            ).checked()
            for table, targets, known in zip(tables, labels, pictures, strict=True)
        ]
        for source in sources if of_images else ():  # one that breaks off is told now, and not while the model trains
            for _ in fetched(source, (range(*ends) for ends in ranges(source)), torch.device("cpu")):
                pass
        return sources


def as_names(parameter: str, given: Any) -> str | list[str] | None:
    """The columns that a parameter gives: a name, a list of names, or None; a number is the name that it looks like."""
    if given is None:
        return None
    names = names_of(parameter, given)
    expect(bool(names), parameter, "the name of at least one column", given)
    return names[0] if isinstance(given, (str, int, float)) else names


def described(feature: Any) -> str:
    """What a column holds, in a word."""
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind


def as_asked(y: np.ndarray, task: str | None, where: str) -> np.ndarray:
    """A target's numbers as floats for a regression, and as whole numbers for classes; as they are where neither is asked for.

    Raises:
        RecipeError: text as numbers, numbers with fractions as classes.
    """
    check_finite(y, where)
    if task == REGRESSION:
        if y.dtype.kind == "U":
            raise RecipeError(
                f"{where} holds text, and data.task=regression takes numbers: leave it out, or take another target"
            )
        return y.astype(np.float64).reshape(len(y), -1)  # one column, as floats in a row may be labels
    if task == CLASSIFICATION and y.dtype.kind == "f":
        if not (y == np.round(y)).all():
            raise RecipeError(
                f"{where} holds numbers with fractions, which are no classes: leave data.task out, or type data.task=regression"
            )
        return y.astype(np.int64)
    return y


def column_of(table: Any, name: str, where: str) -> np.ndarray:
    """A whole column."""
    chosen = table.select_columns([name])
    found = [as_array(cells.column(0), where, rows, text=True) for cells, rows in pieces(chosen)]
    if not found:
        raise RecipeError(f"{where} has no rows")
    if other := [x.shape[1:] for x in found if x.shape[1:] != found[0].shape[1:]]:
        raise RecipeError(f"{where}: lists differ in length, {found[0].shape[1:]} and {other[0]}: a target has one form")
    return np.concatenate(found)


def classes_of(tables: Sequence[Any], name: str, where: str) -> tuple[str, ...]:
    """The names of a column's classes; none where they have none."""
    known = [tuple(getattr(table.features[name], "names", None) or ()) for table in tables]
    if any(names != known[0] for names in known):
        raise RecipeError(f"{where}: the classes of column {name} have other names in test than in train: give both the same")
    return known[0]
