"""Samples that are rows of a table in Arrow's format, which stays in its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError
from plugins.inputs import Entry, Inputs, alike, concatenated, described, each, joined, shape_of
from recipes.data.arrays import as_named_input, check_inputs, check_values, to_inputs
from recipes.data.arrow import as_array, as_one, content_of, pieces
from recipes.data.images import Form, Looked, decode
from recipes.data.mapped import Mapped, mapped
from recipes.data.source import Sample, Source, carried, joint


@dataclass
class Pictures:
    """What is known of a column of images.

    Args:
        looked: at the image of each row.
        form: that each image gets.
    """

    looked: Sequence[Looked]
    form: Form


@dataclass(eq=False)
class ArrowSource(Source):
    """Samples whose inputs are columns of a table, read when they are needed, with their targets in memory.

    One column is images, or an array of numbers a row; several that hold one number a row each are the features of a sample, in
    their order. Where `by_name`, each column is an input by its name.

    Args:
        table: a `datasets.Dataset` that gives its rows as tables of Arrow.
        columns: the inputs.
        by_name: whether they are several by name.
        targets: of the samples, one tensor a task.
        pictures: what is known of columns of images, for all rows of the table.
        where: the table's place, for errors.
        places: the samples' rows, (samples,).
        form: the shape of a sample; None: that of the first.
        workers: processes that read ahead.
        remark: for the first lines of a run.
        in_place: columns that are read where they are mapped, once the source is checked.
    """

    table: Any
    columns: Sequence[str]
    by_name: bool
    targets: dict[str, Tensor]
    pictures: Mapping[str, Pictures]
    where: str
    places: Tensor
    form: Any = None
    workers: int = 0
    remark: str = ""
    in_place: Mapping[str, Mapped] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """The targets."""
        return self.targets

    @property
    def shape(self) -> Any:
        """The shape of one sample."""
        return super().shape if self.form is None else self.form

    def fetch(self, index: Tensor) -> Sample:
        """Samples by index, read from the table."""
        # no rows tell no length of their lists, so that one is read for it
        places = self.places[index] if len(index) else self.places.new_zeros(1)
        if len(self.in_place) == len(self.columns):
            found = {name: self.in_place[name].rows(places.numpy()) for name in self.columns}
        else:
            found = self.arrays(self.table[places.tolist()], places.tolist())
        targets = {task: target.index_select(0, index) for task, target in self.targets.items()}
        return each(self.inputs(found), lambda x: x[: len(index)]), targets

    def arrays(self, cells: Any, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """The columns of some rows.

        Args:
            cells: the rows, as a table of Arrow.
            rows: their numbers.
        """
        found = {}
        for name in self.columns:
            where = f"{self.where}: column {name}"
            if (pictures := self.pictures.get(name)) is None:
                found[name] = as_array(cells.column(name), where, rows)
            else:
                images = [
                    decode(content_of(cell, row, where), pictures.form, f"{where}, row {row}").numpy()
                    for cell, row in zip(cells.column(name).to_pylist(), rows, strict=True)
                ]
                found[name] = np.stack(images) if images else np.empty((0, *pictures.form.shape), np.uint8)
        return found

    def inputs(self, found: Mapping[str, np.ndarray]) -> Inputs:
        """Columns as a model gets them."""
        if self.by_name:
            return {name: as_named_input(x, f"{self.where}: column {name}") for name, x in found.items()}
        x = as_one(found)
        return to_inputs(x, self._where_inputs, images=x.ndim != 2)

    @property
    def _where_inputs(self) -> str:
        return f"{self.where}: column {', '.join(self.columns)}"

    def checked(self) -> ArrowSource:
        """The source with the shape of its samples, after a look at all numbers of its inputs.

        Raises:
            RecipeError: empty cells, lists of several lengths, values that are NaN or infinite, images out of [0, 1], no numbers.
        """
        entries: dict[str, Any] = {name: Entry(known.form.shape, "uint8") for name, known in self.pictures.items()}
        form: Any = next((entry.shape for entry in entries.values()), None)
        if numbers := [name for name in self.columns if name not in self.pictures]:
            shapes: list[Any] = []
            part = replace(self, columns=numbers)
            check_values(part._looked_at(shapes), part._where_inputs)
            form = shapes[0]
            entries.update(joined(form, shapes[1:]) if self.by_name else {})
        found = {name: mapped(self.table, name) for name in numbers}
        return replace(
            self,
            form={name: entries[name] for name in self.columns} if self.by_name else form,
            in_place={name: column for name, column in found.items() if column is not None},
        )

    def _looked_at(self, shapes: list[Any]) -> Iterator[tuple[np.ndarray, Tensor]]:
        """All rows as they are and as inputs, of which only those by name are checked here; adds the shape of each piece's samples."""
        for cells, rows in pieces(self.table):
            found = self.arrays(cells, rows)
            if not self.by_name:
                check_inputs(as_one(found), self._where_inputs)
            x = self.inputs(found)
            shapes.append(shape_of(x))
            if not alike(shapes[-1], shapes[0]):
                raise RecipeError(
                    f"{self._where_inputs}: rows differ in shape, {described(shapes[0])} in row 0 and {described(shapes[-1])} in row {rows[0]}: "
                    f"write all with one shape, padded where they are shorter"
                )
            if isinstance(x, Tensor):
                yield as_one(found), x

    def contents(self) -> Iterator[Any]:
        """What tells the inputs from others: the files of images as they are, all numbers."""
        pictures = [name for name in self.columns if name in self.pictures]
        if not pictures:
            yield from super().contents()
            return
        for name in pictures:
            known = self.pictures[name]
            yield f"{name} {len(self)} images {known.form}".encode()
            yield from (known.looked[place].digest for place in self.places.tolist())
        if numbers := [name for name in self.columns if name not in pictures]:
            yield from replace(self, columns=numbers, form=None, in_place={}).contents()

    def __getitem__(self, index: Any) -> ArrowSource:
        chosen = torch.arange(len(self))[index]
        targets = {task: target[chosen] for task, target in self.targets.items()}
        made = replace(self, places=self.places[chosen], targets=targets)
        return carried(made, lambda values: values[chosen], self)

    def __add__(self, other: Any) -> ArrowSource:
        if not isinstance(other, ArrowSource) or other.table is not self.table:
            return NotImplemented
        targets = concatenated([self.targets, other.targets])
        made = replace(self, places=torch.cat([self.places, other.places]), targets=targets)
        return carried(made, joint, self, other)
