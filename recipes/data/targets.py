"""What a target is, what a model must return for it, and what its inputs are: decided here, for files and for loaders alike.

| a target of | is |
|---|---|
| whole numbers or truth values, (samples,) or (samples, 1) | classes 0, 1, … |
| whole numbers or truth values, (samples, *places) | classes 0, 1, … at each place, such as (height, width): class maps, sequences |
| floats, (samples,) or (samples, 1) | one number: a regression |
| floats, (samples, n) | n numbers: a regression |
| anything else | refused |

That a model has an output for each class and place, (samples, classes, *places), is asked before the first batch, so labels of
another meaning (one-hot, several a sample) do not pass for sequences.

Floats (samples,) in which nothing but the whole numbers 0, 1, … stand are labels that were stored as floats, or numbers: what is
meant is asked. Floats (samples, 1) are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plugins.base import RecipeError, Task

MULTILABEL = "multilabel"
MOST_LABELS = 20  # so many different whole numbers that are stored as floats may be labels


def kind_of(name: str, target: Tensor) -> str:
    """The kind of a target: "regression" of floats, "multilabel" of truth values (samples, labels), else "classification".

    Args:
        name: of the task, "" for the only one.
        target: of several samples.

    Raises:
        RecipeError: targets of a shape, or of numbers, that no task here has.
    """
    shown = f"target {name or 'y'}"
    if target.is_complex():
        raise RecipeError(f"{shown} holds complex numbers: give real ones")
    if target.is_floating_point():
        if target.ndim not in (1, 2) or 0 in target.shape[1:]:
            raise RecipeError(f"{shown} has the shape {tuple(target.shape)}: a regression has numbers (samples, columns)")
        return "regression"
    if target.ndim == 0 or 0 in target.shape[1:]:
        raise RecipeError(
            f"{shown} has the shape {tuple(target.shape)}, no label a sample: there are tasks with one label a sample, (samples,), with one "
            f"for each place, (samples, *places), and with numbers, floats of shape (samples, columns)"
        )
    return MULTILABEL if are_several_labels(target) else "classification"


def are_several_labels(target: Tensor) -> bool:
    """Whether a target says of each of several labels whether a sample has it: truth values (samples, labels)."""
    return target.dtype == torch.bool and target.ndim == 2 and target.shape[1] > 1


def places_of(target: Tensor) -> tuple[int, ...]:
    """The places of a sample that have a label each; () where a sample has one, or numbers."""
    if (
        target.is_floating_point()
        or target.ndim < 2
        or (target.ndim == 2 and target.shape[1] == 1)
        or are_several_labels(target)
    ):
        return ()
    return tuple(target.shape[1:])


def expect_meant(name: str, target: Tensor, fix: str) -> None:
    """Refuse floats that look like labels: none but the whole numbers from 0 on, each of which stands there.

    Args:
        name: of the task.
        target: all of it, or what is known of it.
        fix: what to type or write for either meaning.
    """
    if target.is_floating_point() and target.ndim == 1:
        values = target.unique()
        if 2 <= len(values) <= MOST_LABELS < len(target) and torch.equal(values, torch.arange(len(values)).to(values)):
            raise RecipeError(f"target {name or 'y'} holds floats, but none other than 0 to {len(values) - 1}: {fix}")


def expect_labels(name: str, target: Tensor, classes: int | None = None, ignored: int | None = None) -> None:
    """Refuse labels that name no class: losses, metrics and techniques that soften targets index by them.

    Args:
        name: of the task.
        target: labels of any shape; floats are numbers, of which all are right.
        classes: that there are; None where the labels tell.
        ignored: a label that the loss leaves out; None: there is none.
    """
    if target.is_floating_point() or target.dtype == torch.bool:
        return
    if not (target := known_labels(target, ignored)).numel():
        return
    low, high = (int(bound) for bound in target.aminmax())
    known = f"labels 0 to {classes - 1}" if classes else "labels 0, 1, …"
    fix = "count classes from 0{}; to leave samples out take a loss with ignore_index, as torch's, or drop these samples"
    if low < 0:
        raise RecipeError(f"target {name or 'y'} holds the label {low}, expected {known}: {fix.format('')}")
    if classes is not None and high >= classes:
        more = ", and give the model an output for each"
        raise RecipeError(f"target {name or 'y'} holds the label {high}, expected {known}: {fix.format(more)}")


def known_labels(target: Tensor, ignored: int | None) -> Tensor:
    """The labels that name a class, without those that the loss leaves out; numbers and truth values as they are."""
    whole = ignored is None or target.is_floating_point() or target.dtype == torch.bool
    return target if whole else target[target != ignored]


def as_target(task: Task, target: Tensor, known: bool = False, ignored: int | None = None) -> Tensor:
    """A batch's target as losses and metrics take it: labels (samples, *places); numbers and several labels a sample as they are.

    Args:
        task: the target to predict.
        target: of a batch.
        known: whether its labels were looked at before, which on a GPU would be waited for.
        ignored: a label that the loss leaves out; None: there is none.

    Raises:
        RecipeError: a target of another kind than the task has, labels that name no class.
    """
    if kind_of(task.name, target) != task.kind:
        raise RecipeError(f"target {task.name or 'y'} was a {task.kind} so far, and now holds {target.dtype} numbers")
    if task.kind == MULTILABEL and target.shape[1] != task.outputs:
        raise RecipeError(
            f"target {task.name or 'y'} of {describe(task)} now has {target.shape[1]}: give the model an output for each"
        )
    if task.kind == "classification":
        if not known:
            expect_labels(task.name, target, task.outputs, ignored)
        if target.ndim > 1:
            target = target.squeeze(1) if target.ndim == 2 and not task.shape else target
            if target.shape[1:] != task.shape:
                raise RecipeError(
                    f"target {task.name or 'y'} of {describe(task)} now has the shape {tuple(target.shape)}: batches must have samples "
                    f"of one shape, {task.shape}"
                )
        elif task.shape:
            raise RecipeError(f"target {task.name or 'y'} of {describe(task)} now has one label a sample")
    return target


def by_task(names: Sequence[str], outputs: object) -> dict[str, Tensor]:
    """What a model has returned, one tensor a task: it returns a tensor, or a mapping with an entry for each.

    Raises:
        RecipeError: it returns something else.
    """
    if isinstance(outputs, Tensor):
        return {names[0]: outputs}
    if not isinstance(outputs, Mapping):
        raise RecipeError(
            f"the model returns a {type(outputs).__name__}, expected a tensor (samples, outputs) or a dict with one entry a "
            f"task: let its forward return that alone"
        )
    for name in names:
        if not isinstance(outputs.get(name), Tensor):
            wanted = f"a tensor {name}" if name else "a tensor alone"
            there = ", ".join(map(str, outputs)) or "nothing"
            raise RecipeError(f"the model returns a dict with {there}, expected {wanted}: let its forward return that")
    return {name: outputs[name] for name in names}


def as_outputs(tasks: Sequence[Task], outputs: object, samples: int) -> dict[str, Tensor]:
    """What a model has returned, one entry (samples, outputs) a task; of class maps (samples, outputs, *places).

    Args:
        tasks: the targets to predict.
        outputs: a tensor, or a mapping with one entry a task.
        samples: that went in.

    Raises:
        RecipeError: it is something else, or of another shape.
    """
    found = by_task([task.name for task in tasks], outputs)
    for task in tasks:
        output = found[task.name]
        if not output.is_floating_point():
            raise RecipeError(
                f"the model returns {output.dtype} numbers, from which no gradient comes: let its forward return floats, such as "
                f"logits instead of classes"
            )
        if output.ndim == 1 and task.kind == "regression" and task.outputs == 1:
            found[task.name] = output = output.unsqueeze(1)
        if output.shape[:2] != (samples, task.outputs) or output.ndim != 2 + len(task.shape):
            raise RecipeError(
                f"the model returns the shape {tuple(output.shape)} for target {task.name or 'y'} of {describe(task)}, expected "
                f"{(samples, task.outputs, *task.shape)}"
            )
    return found


def width_of(name: str, kind: str, output: Tensor, places: tuple[int, ...] = ()) -> int:
    """How many outputs a model has for a target; refuses one output for labels, whose accuracy would be nonsense.

    Args:
        name: of the task.
        kind: of the task.
        output: of the model.
        places: of a sample that have a label each; refused where the model has no outputs for each.
    """
    if places and (output.ndim < 2 or output.shape[2:] != places):
        raise RecipeError(
            f"target {name or 'y'} has a label for each of the places {places} of a sample, and the model returns the shape "
            f"{tuple(output.shape)}: it must return (samples, classes, {', '.join(map(str, places))}), such as model=fcn; for one label a "
            f"sample give targets (samples,)"
        )
    if kind == MULTILABEL and output.ndim != 2:
        raise RecipeError(
            f"target {name or 'y'} has several labels a sample, and the model returns the shape {tuple(output.shape)}: it must return "
            f"(samples, labels)"
        )
    width = 1 if output.ndim < 2 else int(output.shape[1] if places else output.shape[-1])
    if kind == "classification" and width < 2:
        raise RecipeError(
            f"the model has one output for the labels of target {name or 'y'}: give it one output a class, two for 0 and 1, and take "
            f"loss=cross_entropy"
        )
    return width


def describe(task: Task) -> str:
    """A target in words."""
    if task.kind == "classification":
        return f"{task.outputs} classes" + (f" at each of {' × '.join(map(str, task.shape))} places" if task.shape else "")
    if task.kind == MULTILABEL:
        return f"{task.outputs} labels, of which a sample may have several"
    if task.quantiles:
        numbers = task.outputs // len(task.quantiles)
        return f"{'a number' if numbers == 1 else f'{numbers} numbers'}, {len(task.quantiles)} quantiles of each"
    return "a number" if task.outputs == 1 else f"{task.outputs} numbers"
