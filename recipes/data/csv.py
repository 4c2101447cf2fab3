"""A user's own table, from a csv file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError, expect, expect_choice
from recipes.data import table_targets
from recipes.data.base import Data
from recipes.data.columns import CATEGORICAL, NUMERIC, Values, counts_rows, read, refuse_id
from recipes.data.encoding import IMPUTE, Column, as_plain, encode, from_plain, learn
from recipes.data.rows import TEST, TRAIN, Encoded, Rows, groups_of, parts_of, weights_of
from recipes.data.source import Source
from recipes.data.split import fingerprint
from recipes.data.table import MISSING, SHOWN, Table, separator_of, shown
from recipes.data.table_roles import Roles, names_of
from recipes.data.table_targets import CLASSIFICATION, REGRESSION, Target, decide
from recipes.data.targets import MULTILABEL
from recipes.data.times import times_of


class CsvData(Data):
    """A table from a csv file: a row a sample, columns of numbers and of categories, one or several of them to predict.

    A column of numbers is one feature; one of text has a feature, 0 or 1, for each category of the training rows. What holes are filled
    with, too, is a statistic of the training rows alone. Both belong to a trained model, which reads other files by them.

    Args:
        path: the file, in UTF-8, whose first line names the columns.
        target: name of the column to predict, or a list of names: one task each, or of `multilabel` one label each.
        task: `classification` or `regression`, of all targets, or `multilabel`: columns of 0 and 1, false and true, or no and yes; None: text is classes, and so are at most 20 different whole numbers with more
            than five rows for each; other numbers are a regression.
        inputs: names of the columns to predict from; None: all others.
        drop: names of columns that are left out.
        categorical: names of columns of numbers that are categories.
        separator: what stands between two cells: `comma`, `semicolon`, `tab`, or any other letter.
        missing: cells that are holes, as empty ones always are; None: ? and what pandas reads as one, such as NA, N/A and NaN, but None and NULL.
        impute: what fills the holes of numbers: `mean`, `median` or `most_frequent`; of categories always the most frequent; None: holes are
            refused.
        unseen: what becomes of a category that no training row has: `error`, or `ignore`: zeros.
        groups: name of a column, no input, of which rows with the same value are never in two splits; None: rows are drawn by themselves.
        split: name of a column, no input, that holds train, validation or test; None: the rows are split here.
        time: name of a column, no input, of numbers or ISO dates: the test split is the latest rows, validation the latest of the others, and
            folds go forward (`recipes/data/times.py`); None: rows are drawn.
        weights: name of a column, no input, of what each row counts in the loss that is minimized, ≥ 0; metrics, and what is learned of the
            training rows beside the model, count all alike; None: all alike.

    Raises:
        RecipeError: a file, a column or a cell that cannot be right, by its name and line.
    """

    def __init__(
        self,
        path: str | None = None,
        target: str | Sequence[str] | None = None,
        task: str | None = None,
        inputs: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        categorical: Sequence[str] = (),
        separator: str = "comma",
        missing: Sequence[str] | None = None,
        impute: str | None = None,
        unseen: str = "error",
        groups: str | None = None,
        split: str | None = None,
        time: str | None = None,
        weights: str | None = None,
        **further: Any,
    ) -> None:
        super().__init__(**further)
        expect(path is not None, "data.path", "the path of a csv file (data=csv data.path=FILE data.target=NAME)", path)
        expect(target is not None, "data.target", "the name of the column to predict (data.target=NAME)", target)
        if task is not None:
            expect_choice("data.task", task, (CLASSIFICATION, MULTILABEL, REGRESSION))
        if impute is not None:
            expect_choice("data.impute", impute, tuple(IMPUTE))
        expect_choice("data.unseen", unseen, ("error", "ignore"))
        self.separator = separator_of(separator)
        given = missing is None or (isinstance(missing, Sequence) and not isinstance(missing, str))
        expect(given, "data.missing", "a list of cells or null", missing)
        self.path, self.task, self.impute, self.unseen = Path(str(path)), task, impute, unseen
        self.roles = Roles(
            names_of("data.target", target),
            None if inputs is None else names_of("data.inputs", inputs),
            *(names_of("data.drop", drop), names_of("data.categorical", categorical)),
            *(None if name is None else str(name) for name in (groups, split, time, weights)),
        )
        if time is not None and groups is not None:
            raise RecipeError(
                "data.time holds out the latest rows, which would tear the groups of data.groups apart: leave one of them out"
            )
        if time is not None and split is not None:
            raise RecipeError("data.time and data.split both say which rows are held out: leave one of them out")
        expect(self.roles.inputs != [], "data.inputs", "the name of at least one column", inputs)
        least = 2 if task == MULTILABEL else 1
        several = "the names of the columns of at least two labels, [NAMES]" if least > 1 else "the name of at least one column"
        expect(len(self.roles.targets) >= least, "data.target", several, target)
        self.missing = frozenset(["", *map(str, MISSING if missing is None else missing)])
        self._columns: list[Column] = []  # what was learned
        self._targets: list[Target] = []
        self._inputs: list[str] = []  # names, and of this file
        self._words: list[list[str] | None] = []  # the words of each, None of numbers
        self._counting: list[str] = []  # those that go up with the rows
        self._lines: list[int] = []
        self._times: list[str] = []  # the different ones, in their order
        self._whole: Rows | None = None

    def load(self) -> tuple[Source, Source | None]:
        """The rows of the file, not encoded yet."""
        table = Table(self.path, self.separator)
        if self._columns:
            self._expect_inputs(table)
            table.expect_columns(self.roles.targets, "data.target")
            kinds = {column.name: column.kind for column in self._columns} | {each.name: each.column for each in self._targets}
        else:
            self._inputs = self.roles.chosen(table)
            kinds = self.roles.kinds(table, self._inputs, self.missing, self.impute is not None, self.task)
        others = self.roles.others
        if self._columns:  # another file may do without
            others = {use: name for use, name in others.items() if name in table.names}
        kinds |= {name: NUMERIC if use == "weights" else CATEGORICAL for use, name in others.items()}
        lines, values = read(table, kinds, self.missing)
        if not self._columns:
            self._decide(values)
        rows = self._rows(lines, values, others)
        test = rows.parts == TEST
        self._lines = (rows.lines[test] if test.any() else rows.lines).tolist()
        if not test.any():
            return rows, None
        self._whole = rows
        return rows[~test], rows[test]

    def _loaded(self) -> tuple[Source, Source | None]:
        found, whole = super()._loaded(), self._whole
        self._whole = None
        if whole is not None:  # the same content whether or not a column says the split
            self.content = fingerprint({"": whole})
        return found

    def learn(self, train: Source) -> None:
        """Learn categories and what fills holes of the training rows."""
        x, leave_out = train.between(0, len(train))[0].numpy(), self.roles.leave_out
        self._columns = learn(x, self._inputs, self._words, self.impute, str(self.path), leave_out)

    def encode(self, split: Source) -> Source:
        """Rows as features."""
        if not isinstance(split, Rows):
            raise RecipeError(f"{type(self).__name__} encodes the rows that it has loaded, got a {type(split).__name__}")
        if not self._columns:
            raise RecipeError("the run was trained on no columns of a table, and knows nothing of those of data=csv")
        where, leave_out = str(self.path), self.roles.leave_out
        x = encode(split.x.numpy(), self._words, self._columns, self.unseen, split.lines.numpy(), where, leave_out)
        remark = self._remark(x.shape[1], split.weight is not None)
        return Encoded(torch.from_numpy(x), split.targets, remark, weight=split.weight, groups=split.groups)

    def state(self) -> dict[str, Any]:
        """The columns, their categories and what fills their holes, and the targets with their classes."""
        if not self._columns:
            return {}
        return {"columns": as_plain(self._columns), "targets": table_targets.as_plain(self._targets)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over the columns and the targets of another run; of a run that has learned none, nothing."""
        if not state:
            return
        try:
            columns, targets = from_plain(state["columns"]), table_targets.from_plain(state["targets"])
        except (TypeError, ValueError, KeyError) as error:
            raise RecipeError(f"this is nothing that data=csv has learned: {error}") from None
        if [target.name for target in targets] != self.roles.targets:
            trained, given = (", ".join(names) for names in ([each.name for each in targets], self.roles.targets))
            raise RecipeError(f"data.target must be {trained}, which the run was trained to predict, got {given}")
        self._columns, self._targets, self._inputs = columns, targets, [column.name for column in columns]
        self._name_classes()

    def load_inputs(self) -> Source:
        """All rows of the file as features, without targets."""
        if not self._columns:
            raise RecipeError("data=csv reads inputs by what a run has learned of its training rows: load_state() comes first")
        table = Table(self.path, self.separator)
        self._expect_inputs(table)
        lines, values = read(table, {column.name: column.kind for column in self._columns}, self.missing)
        self._lines = lines.tolist()
        return self.encode(self._rows(lines, values, targets=False))

    def ids(self) -> list[str]:
        """The line of the file where each row begins."""
        return list(map(str, self._lines))

    def _decide(self, values: Mapping[str, Values]) -> None:
        """What the targets are, of all rows; no input may be an id that is text, and one that counts the rows is told."""
        for name in self._inputs:
            refuse_id(values[name], f"{self.path}: column {shown(name)}", f"leave it out by {self.roles.leave_out(name)}")
        self._counting = [name for name in self._inputs if counts_rows(values[name])]
        self._targets = [
            decide(name, values[name], self.task, f"{self.path}: column {shown(name)}") for name in self.roles.targets
        ]
        self._name_classes()

    def _name_classes(self) -> None:
        self.class_names = table_targets.class_names(self._targets, self.task)

    def _expect_inputs(self, table: Table) -> None:
        """Refuse a file without a column that the run was trained on."""
        if lacking := [name for name in self._inputs if name not in table.names]:
            more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
            raise RecipeError(
                f"{self.path} lacks inputs that the run was trained on: {', '.join(map(shown, lacking[:SHOWN]))}{more}"
            )

    def _rows(
        self, lines: np.ndarray, values: Mapping[str, Values], others: Mapping[str, str] | None = None, targets: bool = True
    ) -> Rows:
        """The rows of the file; its words are those that the numbers stand for from now on."""
        self._words = [values[name].words for name in self._inputs]
        where = f"{self.path}: column "
        given = {use: (values[name], lines, where + shown(name)) for use, name in (others or {}).items()}
        parts = parts_of(*given["split"]) if "split" in given else torch.full((len(lines),), TRAIN)
        times, self._times = times_of(*given["time"]) if "time" in given else (None, [])
        labels = table_targets.by_task(self._targets, values, lines, where, self.task) if targets else {}
        return Rows(
            torch.from_numpy(np.stack([values[name].numbers for name in self._inputs], 1)),
            labels,
            torch.from_numpy(lines),
            parts,
            times,
            json.dumps([self._inputs, self._words, [each.classes for each in self._targets if targets]]),
            groups=groups_of(parts, *given["groups"]) if "groups" in given else None,
            weight=weights_of(*given["weights"]) if "weights" in given else None,
        )

    def _divide(self, split: Source, share: float, name: str) -> tuple[Source, Source, Tensor]:
        assert isinstance(split, Rows)
        drawn = super()._divide
        return split.divided(share, name, lambda rows: drawn(rows, share, name)[2])

    def _fold(self, samples: Source) -> tuple[Source, Source, Tensor]:
        assert isinstance(samples, Rows)
        drawn = super()._fold
        return samples.folded(int(self.folds or 0), self.fold, lambda rows: drawn(rows)[2])

    def _split_by(self, train: Source) -> str:
        return next((f"data.{use}" for use in ("split", "time", "groups") if use in self.roles.others), "")

    def _remark(self, features: int, weighted: bool) -> str:
        """What was made of the file."""
        counts = [sum(column.kind == kind for column in self._columns) for kind in (NUMERIC, CATEGORICAL)]
        columns = " and ".join(f"{count} {kind}" for count, kind in zip(counts, (NUMERIC, CATEGORICAL), strict=True) if count)
        counting = "".join(
            f"; {shown(name)} counts the rows, as an id: {self.roles.leave_out(name)} leaves it out" for name in self._counting
        )
        return (
            f"{shown(self.path.name)}: {columns} column{'s' if sum(counts) != 1 else ''} ({features} inputs), {len(self._lines):,} rows; "
            f"{table_targets.told(self._targets, self.task)}{self._told_of_times()}{self._told_of_groups()}"
            f"{f'; rows count by {shown(str(self.roles.weights))}' if weighted else ''}{counting}"
        )

    def _told_of_groups(self) -> str:
        """How many rows the groups have that were drawn for each split: these are shares of the groups."""
        rows = [f"{len(split):,} for {name}" for name, split in self.splits.items() if isinstance(split, Rows)]
        return f"; rows of one {shown(self.roles.groups)} together: {', '.join(rows)}" if self.roles.groups and rows else ""

    def _told_of_times(self) -> str:
        begin = {
            name: self._times[int(split.times.min())]
            for name, split in self.splits.items()
            if isinstance(split, Rows) and split.times is not None
        }
        return f"; validation from {shown(begin['val'])}, test from {shown(begin['test'])} on" if len(begin) == 3 else ""
