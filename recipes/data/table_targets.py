"""What is predicted of a table: classes or a number, by a rule that is told, and its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError
from recipes.data.columns import CATEGORICAL, FEW_ROWS, Look, Values, kind_of_column
from recipes.data.table import lines_in_words, shown
from recipes.data.targets import MOST_LABELS, MULTILABEL

CLASSIFICATION, REGRESSION = "classification", "regression"
ABSENT_OR_THERE = (("0", "1"), ("false", "true"), ("no", "yes"))  # the cells of a label that a row may have
ROWS_A_CLASS = 5  # whole numbers of which there are fewer rows for each are no classes


@dataclass(frozen=True)
class Target:
    """A column to predict.

    Args:
        name: of the column.
        kind: `classification` or `regression`.
        column: `numeric` or `categorical`: what the cells are.
        classes: the labels in words, sorted; whole numbers by their size.
    """

    name: str
    kind: str
    column: str
    classes: tuple[str, ...] = ()

    def told(self, by_rule: bool) -> str:
        """The target in words; `by_rule`: and how to decide otherwise."""
        if self.kind == REGRESSION:
            return f"{self.name}: a regression" + (" (data.task=classification for classes)" if by_rule else "")
        other = " (data.task=regression for a number)" if by_rule and self.column != CATEGORICAL else ""
        return f"{self.name}: {len(self.classes)} classes{other}"


def decide(name: str, values: Values, task: str | None, where: str) -> Target:
    """What a target is.

    Text is classes. Numbers are classes where all of them are whole, at most 20 of them differ, and there are more than five rows for each;
    a regression otherwise.

    Args:
        name: of the column.
        values: all of it, without holes.
        task: `classification`, `regression` or `multilabel`, of which this is one label; None: by the rule.
        where: the file and the column, for the error.

    Raises:
        RecipeError: targets that are of another kind, of one value, or of another value in each row.
    """
    if task == MULTILABEL:
        return Target(name, CLASSIFICATION, "numeric" if values.words is None else CATEGORICAL, _both(values, where))
    different = np.unique(values.numbers)
    one = f"{where}, the target: all {len(values.numbers)} rows hold %s: there is nothing to learn"
    if values.words is not None:
        if task == REGRESSION:
            raise RecipeError(
                f"{where}, the target, holds text such as {shown(values.words[0])}, no numbers for data.task=regression"
            )
        if len(values.words) == 1:
            raise RecipeError(one % f"one class, {shown(values.words[0])}")
        _refuse_id(len(values.words), len(values.numbers), where)
        return Target(name, CLASSIFICATION, CATEGORICAL, tuple(values.words))
    whole = bool((different == np.round(different)).all())
    few = len(different) <= MOST_LABELS and ROWS_A_CLASS * len(different) < len(values.numbers)
    if len(different) == 1:
        raise RecipeError(one % f"{different[0]:g}")
    if task == REGRESSION or (task is None and not (whole and few)):
        return Target(name, REGRESSION, "numeric")
    if not whole:
        other = different[different != np.round(different)][0]
        raise RecipeError(
            f"{where}, the target, holds numbers such as {other:g}, no classes for data.task=classification: leave it out, or write the "
            f"classes as text or whole numbers"
        )
    _refuse_id(len(different), len(values.numbers), where)
    return Target(name, CLASSIFICATION, "numeric", tuple(map(_label, different)))


def _both(values: Values, where: str) -> tuple[str, ...]:
    """The cell of a row without a label, and of one that has it."""
    different = np.unique(values.numbers)
    given = (
        values.words
        if values.words is not None
        else [_label(each) if each == round(each) else f"{each:g}" for each in different]
    )
    if tuple(each.lower() for each in given) not in ABSENT_OR_THERE:
        raise RecipeError(
            f"{where}, a label of data.task=multilabel, must hold 0 and 1, false and true, or no and yes, both of them; got "
            f"{', '.join(map(shown, given[:MOST_LABELS]))}"
        )
    return tuple(given)


def _label(number: float) -> str:
    return str(int(number))


def _refuse_id(classes: int, rows: int, where: str) -> None:
    if classes == rows > FEW_ROWS:
        raise RecipeError(f"{where}, the target, is another class in each row, as an id: choose another data.target")


def refuse_holes(look: Look, where: str, otherwise: str = "") -> None:
    """Refuse rows without a target.

    Args:
        look: at the column.
        where: the file and the column, for the error.
        otherwise: what else to do, for the error.
    """
    if look.holes:
        raise RecipeError(
            f"{where}, the target, has no value in {look.holes} of {look.rows} rows ({lines_in_words(look.hole_lines, look.holes)}): "
            f"leave these rows out{otherwise}"
        )


def kind_of_target(look: Look, where: str, task: str | None) -> str:
    """Whether a target's column is numeric or categorical; many numbers beside texts are so only where `task` says that they are classes."""
    if task == CLASSIFICATION and look.many_numbers and look.texts:
        return CATEGORICAL
    fix = "leave these rows out" + ("" if task else f", type data.task={CLASSIFICATION} where all are classes")
    return kind_of_column(look, f"{where}, the target,", "choose another data.target", fix, mixed=False)


def labels_of(target: Target, values: Values, lines: np.ndarray, where: str) -> Tensor:
    """The labels of rows, whole numbers (samples,); of a regression floats (samples, 1).

    Args:
        target: what is predicted.
        values: of the column in these rows.
        lines: of the rows, for the error.
        where: the file and the column, for the error.

    Raises:
        RecipeError: a hole, or a label that is none of the classes.
    """
    if (holes := np.isnan(values.numbers)).any():
        raise RecipeError(f"{where}, line {lines[holes.argmax()]}: the target has no value: leave the row out")
    if target.kind == REGRESSION:
        return torch.from_numpy(values.numbers.astype(np.float32)[:, None])
    place = {name: number for number, name in enumerate(target.classes)}
    different, code = np.unique(values.numbers, return_inverse=True)
    if values.words is not None:
        given = [values.words[int(each)] for each in different]
    else:
        given = [_label(each) if each == round(each) else f"{each:g}" for each in different]
    labels = np.array([place.get(each, -1) for each in given], dtype=np.int64)[code]
    if (labels < 0).any():
        row = int((labels < 0).argmax())
        raise RecipeError(
            f"{where}, line {lines[row]}: the label {shown(given[int(code[row])])} is none of those that were trained on: "
            f"{', '.join(map(shown, target.classes[:MOST_LABELS]))}"
        )
    return torch.from_numpy(labels)


def by_task(
    targets: Sequence[Target], values: Mapping[str, Values], lines: np.ndarray, where: str, task: str | None
) -> dict[str, Tensor]:
    """The labels of rows, one tensor a task; of `multilabel` truth values (samples, labels).

    Args:
        targets: to predict.
        values: of the columns in these rows, by name.
        lines: of the rows, for the error.
        where: the file, as words in front of a column's name.
        task: `data.task`.
    """
    found = {each.name: labels_of(each, values[each.name], lines, where + shown(each.name)) for each in targets}
    if task == MULTILABEL:
        return {"": torch.stack([*found.values()], 1).bool()}
    return found if len(found) > 1 else {"": found[targets[0].name]}


def class_names(targets: Sequence[Target], task: str | None) -> dict[str, tuple[str, ...]]:
    """The names of classes by task; of `multilabel` those of the labels."""
    if task == MULTILABEL:
        return {"": tuple(each.name for each in targets)}
    return {each.name if len(targets) > 1 else "": each.classes for each in targets if each.classes}


def told(targets: Sequence[Target], task: str | None) -> str:
    """Targets in words, for the first lines of a run."""
    if task == MULTILABEL:
        return f"targets {', '.join(each.name for each in targets)}: labels that a row may have"
    return f"target{'s' if len(targets) > 1 else ''} {', '.join(each.told(task is None) for each in targets)}"


def as_plain(targets: list[Target]) -> list[dict[str, Any]]:
    """The targets as lists and texts, which a checkpoint keeps."""
    return [asdict(target) | {"classes": list(target.classes)} for target in targets]


def from_plain(kept: list[Mapping[str, Any]]) -> list[Target]:
    """The reverse of `as_plain`; raises a TypeError, ValueError or KeyError for anything else."""
    targets = []
    for each in kept:
        values = {entry.name: each[entry.name] for entry in fields(Target)}
        target = Target(**values | {"classes": tuple(values["classes"])})
        texts = (target.name, target.kind, target.column, *target.classes)
        if not all(isinstance(text, str) for text in texts) or target.kind not in (CLASSIFICATION, REGRESSION):
            raise ValueError(f"no target: {values}")
        targets.append(target)
    return targets
