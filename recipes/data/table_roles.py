"""Which column of a table is what: a target, an input, left out, what rows are split by or count; and of which kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plugins.base import RecipeError, expect
from recipes.data import table_targets
from recipes.data.columns import CATEGORICAL, kind_of_column, look, refuse_holes, unless_named
from recipes.data.table import Table, shown, word


def names_of(parameter: str, given: Any) -> list[str]:
    """The names of columns that a parameter gives, one or a list, each of them once."""
    names: Any = [given] if isinstance(given, (str, int, float)) else given
    if isinstance(given, bool) or not isinstance(names, Sequence):
        raise RecipeError(f"{parameter} must be a name of a column or a list of names, got {given!r}")
    found = [str(name) for name in names]
    expect(len({*found}) == len(found), parameter, "names of which each is given once", given)
    return found


@dataclass(frozen=True)
class Roles:
    """What the parameters say of columns.

    Args:
        targets: to predict.
        inputs: to predict from; None: all others.
        drop: left out.
        categorical: inputs of numbers that are categories.
        groups: by which rows stay together.
        split: which says the split.
        time: by which the latest rows are held out.
        weights: what each row counts.
    """

    targets: list[str]
    inputs: list[str] | None
    drop: list[str]
    categorical: list[str]
    groups: str | None
    split: str | None
    time: str | None
    weights: str | None

    @property
    def others(self) -> dict[str, str]:
        """The columns that are neither inputs nor targets, by what they are for."""
        given = {"groups": self.groups, "split": self.split, "time": self.time, "weights": self.weights}
        return {use: name for use, name in given.items() if name is not None}

    def leave_out(self, name: str) -> str:
        """What to type to leave one more column out."""
        return word("data.drop", *self.drop, name)

    def chosen(self, table: Table) -> list[str]:
        """The inputs, in the order of the table.

        Raises:
            RecipeError: a column that is not there or has two roles, or no input.
        """
        taken = self._taken(table)
        for name in self.drop:
            if taken.get(name) == "data.target":
                raise RecipeError(f"data.drop must name other columns than data.target, got {shown(name)}")
        for name in self.inputs or []:
            if name in taken:
                raise RecipeError(f"data.inputs must name other columns than {taken[name]}, got {shown(name)}")
            if name in self.drop:
                raise RecipeError(f"data.inputs and data.drop both name the column {shown(name)}: take it out of one of them")
        wanted = {*(table.names if self.inputs is None else self.inputs)} - {*self.drop, *taken}
        chosen = [name for name in table.names if name in wanted]
        if not chosen:
            raise RecipeError(
                f"{table.path} has no column to predict {', '.join(map(shown, self.targets))} from: no other is left"
            )
        if self.inputs is None and (unnamed := [name for name in table.unnamed if name in wanted]):
            raise RecipeError(
                f"{table.path}: column {table.names.index(unnamed[0]) + 1} has no name in the header, as the numbers of rows that pandas "
                f"writes: leave it out by {self.leave_out(unnamed[0])}, or name it"
            )
        for name in self.categorical:
            if name not in wanted:
                raise RecipeError(f"data.categorical must name inputs, got {shown(name)}, which is none")
        return chosen

    def kinds(
        self, table: Table, inputs: Sequence[str], missing: frozenset[str], filled: bool, task: str | None
    ) -> dict[str, str]:
        """The kinds of inputs and targets, by what stands in all rows of the table.

        Args:
            table: which is read for that.
            inputs: those chosen.
            missing: cells that are holes.
            filled: whether holes of inputs are filled; they are refused otherwise.
            task: `data.task`.
        """
        looks = look(table, [*inputs, *self.targets], missing)
        kinds = {}
        for name, column in looks.items():
            where = f"{table.path}: column {shown(name)}"
            if name in self.targets:
                table_targets.refuse_holes(column, where, unless_named(column.mark))
                kinds[name] = table_targets.kind_of_target(column, where, task)
            elif name in self.categorical and column.filled:
                kinds[name] = CATEGORICAL
            else:
                category = word("data.categorical", *self.categorical, name)
                fix = f"name what is a hole in data.missing, type {category} where all are categories"
                kinds[name] = kind_of_column(column, where, f"leave it out by {self.leave_out(name)}", fix)
        if not filled:
            refuse_holes({name: looks[name] for name in inputs}, table, self.leave_out)
        return kinds

    def _taken(self, table: Table) -> dict[str, str]:
        """The parameter that takes each column which is no input."""
        taken: dict[str, str] = {}
        given: dict[str, Sequence[str]] = {"data.target": self.targets}
        given |= {f"data.{use}": [name] for use, name in self.others.items()}
        for parameter, names in given.items():
            for name in names:
                table.expect_columns([name], parameter)
                if name in taken:
                    raise RecipeError(f"{parameter} must be another column than {taken[name]}, got {shown(name)}")
                taken[name] = parameter
        for parameter, others in (
            ("data.inputs", self.inputs or []),
            ("data.drop", self.drop),
            ("data.categorical", self.categorical),
        ):
            table.expect_columns(others, parameter)
        return taken
