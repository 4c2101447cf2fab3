"""What losses of numbers, and losses of labels, have in common."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor

from plugins.base import RecipeError, Task, class_probabilities
from plugins.declare import Declared
from plugins.identity import called

Kind = TypeVar("Kind", bound="LossOfLabels")
HALF = (torch.bfloat16, torch.float16)  # lose what sums and powers need


def spelled(loss: object) -> str:
    """What is typed to choose a loss, loss=mae."""
    return called(type(loss)).replace("/", "=")  # type: ignore[arg-type]


def wide(output: Tensor) -> Tensor:
    """Outputs in 32 bits where they have fewer."""
    return output.float() if output.dtype in HALF else output


class LossOfNumbers(Declared):
    """A loss of the numbers of a regression; a subclass defines `values` of differences.

    Raises:
        RecipeError: labels; outputs and targets of different shapes, which would broadcast without a word.
    """

    def for_task(self, task: Task) -> LossOfNumbers:
        """Itself, for numbers; refuses labels."""
        if task.kind != "regression":
            fix = "bce" if task.kind == "multilabel" else "cross_entropy"
            raise RecipeError(f"{spelled(self)} is for numbers, and target {task.name or 'y'} has labels: type loss={fix}")
        return self

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """One value a sample, the mean over its outputs, (samples,)."""
        if target.ndim == output.ndim - 1 and output.shape[-1] == 1:
            target = target.unsqueeze(-1)
        if output.shape != target.shape:
            raise RecipeError(
                f"{spelled(self)} needs outputs and targets of one shape, got {tuple(output.shape)} and {tuple(target.shape)}"
            )
        output = wide(output)
        values = self.values(target.to(output.dtype) - output)
        return values.flatten(1).mean(1) if values.ndim > 1 else values

    def values(self, residual: Tensor) -> Tensor:
        """The loss of each target less output, of any shape."""
        raise NotImplementedError


class LossOfLabels(Declared):
    """A loss of labels, one or several a sample; a subclass defines `of_classes` and `of_labels`.

    Raises:
        RecipeError: the numbers of a regression; fewer than two outputs for classes; targets of another shape.
    """

    several = False  # whether a sample may have several labels

    def for_task(self: Kind, task: Task) -> Kind:
        """The loss of one task."""
        if task.kind == "regression":
            raise RecipeError(f"{spelled(self)} is for labels, and target {task.name or 'y'} is a regression: type loss=mse")
        found = copy.copy(self)
        found.several = task.kind == "multilabel"
        return found

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """One value a sample, (samples,), the mean over its labels where it has several; of class maps one a place, (samples, *places)."""
        if not self.several and (output.ndim < 2 or output.shape[1] < 2):
            raise RecipeError(f"{spelled(self)} needs an output for each class, got outputs of shape {tuple(output.shape)}")
        output = wide(output)
        target = target.to(output.dtype) if self.several else class_probabilities(target, output.shape[1]).to(output.dtype)
        if target.shape != output.shape:
            raise RecipeError(
                f"{spelled(self)} needs labels or probabilities of shape {tuple(output.shape)}, got {tuple(target.shape)}"
            )
        return self.of_labels(output, target).mean(1) if self.several else self.of_classes(output, target)

    def of_classes(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The loss of each sample, (samples, *places), of logits and class probabilities, both (samples, classes, *places)."""
        raise NotImplementedError

    def of_labels(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The loss of each label of a sample, of logits and probabilities of labels, all (samples, labels)."""
        raise NotImplementedError
