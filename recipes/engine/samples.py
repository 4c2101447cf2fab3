"""A loss sample by sample: what each adds, and what the sum is divided by; found where a loss has `reduction`, as torch's have.

The loss of samples S is Σᵢ bᵢ vᵢ / Σᵢ bᵢ dᵢ over i in S: vᵢ is the value of a sample, bᵢ its weight (`Batch.weight`, else 1), and dᵢ
what the loss itself divides by. The denominator needs no output, so it is known before the first pass of a step.

| loss | vᵢ | dᵢ |
|---|---|---|
| any of reduction "mean" | with reduction "none", the mean over what a sample has | 1 |
| with class weights that divide, of a label y | w_y · (−log p_y) | w_y |
| the same of softened labels q, (samples, classes) | Σ_c w_c q_c · (−log p_c) | Σ_c w_c q_c, so that it goes over into that of a label; torch itself divides by 1 |
| a label that it ignores | 0 | 0 |
| of reduction "sum" | with reduction "none", the sum over what a sample has | none: the sum itself is minimized |

Where a sample has a label for each place, as in class maps, each label has a value of its own, vᵢ, bᵢ and dᵢ are (samples, *places), and
i runs over all labels: the mean is over all labels that are not ignored, as torch's.

Whether it is so is not presumed of names but tried on numbers; a loss that is not is a number of a batch, as before (`sums.py`).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from plugins.base import RecipeError, Task
from plugins.data import of_classes

Loss = Callable[[Tensor, Tensor], Tensor]

REDUCTIONS = ("mean", "batchmean", "sum", "none")
ROWS = 24  # samples on which it is tried
ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, KeyError, AttributeError)


class SampleLoss:
    """A loss that gives one value a sample when it is asked with reduction "none".

    Attributes:
        sums: whether what is minimized is the sum over samples.
        ignored: the label that it leaves out; None: there is none.
        divides: whether the class weights of the labels are what divides.
        fused: the loss of a batch in one call, as it stands; of reduction "none" the mean.
    """

    def __init__(self, loss: Loss, reduction: str, task: Task) -> None:
        self.task, self.sums, self._adds_up = task, reduction == "sum", reduction in ("sum", "batchmean")
        self._loss = loss
        self._each = self._of_softened = _changed(loss, reduction="none")
        self.fused: Loss = _changed(loss, reduction="mean") if reduction == "none" else loss
        self.ignored: int | None = None
        self.divides = self._may_vanish = False
        label = _setting(loss, "ignore_index")
        self._label = label if type(label) is int and task.kind == "classification" else None
        self._takes_softened = self._label is None or self._label < 0  # torch takes no probabilities where a class is left out
        if not self._takes_softened:
            self._of_softened = _changed(loss, reduction="none", ignore_index=-1)

    def is_fused(self, target: Tensor) -> bool:
        """Whether the mean of these samples is one call of the loss."""
        if self.ignored is not None or (self.divides and self._may_vanish):
            return False  # where nothing counts it would be 0 / 0
        return not target.is_floating_point() or (self._takes_softened and not self.divides)

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """One value a sample, (samples,); of class maps one a label, (samples, *places)."""
        values = (self._of_softened if target.is_floating_point() else self._each)(output, target)
        if self.task.shape:
            labels = labels_of(target)
            if values.ndim > labels.ndim:  # of each class
                values = values.sum(1) if self._adds_up else values.mean(1)
            if values.shape != labels.shape:
                raise RecipeError(
                    f"the loss gives values of shape {tuple(values.shape)} for labels {tuple(labels.shape)}: of class maps each label must "
                    f"have one; take loss=cross_entropy"
                )
            return values
        if values.ndim < 2:
            return values
        return values.flatten(1).sum(1) if self._adds_up else values.flatten(1).mean(1)

    def divisors(self, target: Tensor) -> Tensor | None:
        """What the loss divides by, for each label, (samples, *places); None: 1 for each.

        Args:
            target: labels (samples, *places), softened labels (samples, classes, *places), or numbers.
        """
        if self.task.kind != "classification":
            return None
        weight = self._weight() if self.divides else None
        if target.is_floating_point() or self.ignored is None:
            return None if weight is None else of_classes(weight, target)
        kept = target != self.ignored
        if weight is None:
            return kept.float()
        return weight[target.long().where(kept, 0)] * kept

    def _weight(self) -> Tensor | None:
        weight = _setting(self._loss, "weight")
        if not isinstance(weight, Tensor) or weight.ndim != 1 or len(weight) != self.task.outputs:
            return None
        return weight if weight.dtype in (torch.float32, torch.float64) else weight.float()

    def _learn(self) -> bool:
        """Try on numbers what divides; whether it was found."""
        output, target = self._probe()
        task, self.task = self.task, replace(self.task, shape=())  # it is tried on samples with one label
        try:
            return self._divides(output, target)
        finally:
            self.task = task

    def _divides(self, output: Tensor, target: Tensor) -> bool:
        if not torch.allclose(self.values(output[:5], target[:5]), self.values(output, target)[:5], rtol=1e-3, atol=1e-6):
            return False  # samples are compared with each other, or it draws
        ways = [(divides, label) for divides in (False, True) for label in dict.fromkeys((self._label, None))]
        for self.divides, self.ignored in ways:
            if self.divides and (self.task.kind != "classification" or self._weight() is None):
                break
            if self._holds(output, target) and (self.ignored is None or self._holds(output, _with(target, self.ignored))):
                weight = self._weight()
                self._may_vanish = weight is not None and bool((weight == 0).any())
                return True
        return False

    def _holds(self, output: Tensor, target: Tensor) -> bool:
        """Whether the sum of the values, divided so, is the loss."""
        values, divisors = self.values(output, target), self.divisors(target)
        if values.shape != (len(output),):
            return False
        expected = values.sum() / (1 if self.sums else len(output) if divisors is None else divisors.sum())
        found = self.fused(output, target)
        rough = 2e-2 if output.dtype in (torch.float16, torch.bfloat16) else 1e-4
        return found.shape == () and bool(torch.isclose(found.double(), expected.double(), rtol=rough, atol=1e-6))

    def _probe(self) -> tuple[Tensor, Tensor]:
        """Outputs and targets that logits, probabilities and numbers alike may be, with labels of all weights."""
        generator, width = torch.Generator().manual_seed(0), self.task.outputs
        weight = _setting(self._loss, "weight")
        of = weight if isinstance(weight, Tensor) else torch.zeros(())
        output = (0.1 + 0.8 * torch.rand(ROWS, width, generator=generator)).to(of)
        if self.task.kind != "classification":
            return output, (0.1 + 0.8 * torch.rand(ROWS, width, generator=generator)).to(of)
        output = 3 * output
        labels = torch.randint(width, (ROWS,), generator=generator)
        if of.ndim == 1 and len(of) == width:
            labels[:2] = torch.stack([of.argmin(), of.argmax()]).cpu()
        return output, labels.to(of.device)


def as_taken(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """The target in the shape, or the type, that losses take beside such outputs."""
    if task.kind == "classification":
        return target if target.is_floating_point() else target.long()
    if task.kind == "multilabel":
        return target.to(output.dtype)
    target, wide = task.in_shape(target, output), torch.promote_types(output.dtype, torch.float32)
    return target if target.dtype in (output.dtype, wide) else target.to(wide)


def labels_of(target: Tensor) -> Tensor:
    """A tensor of the shape of the labels: these, or of softened ones the share of one class."""
    return target[:, 0] if target.is_floating_point() and target.ndim > 1 else target


def per_sample(loss: Loss, task: Task) -> SampleLoss | None:
    """The loss sample by sample; None where it does not give single values, or these do not make up the loss.

    Args:
        loss: maps outputs and targets to a scalar, or to values with reduction "none".
        task: the target to predict.
    """
    reduction = _setting(loss, "reduction")
    if reduction not in REDUCTIONS:
        return None
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = SampleLoss(loss, reduction, task)
            return found if found._learn() else None
        except ERRORS:
            return None


def ignored_label(loss: Any) -> int | None:
    """The label that a loss leaves out; None: there is none."""
    weight = _setting(loss, "weight")
    task = Task("", "classification", len(weight) if isinstance(weight, Tensor) and weight.ndim == 1 else 3)
    try:
        found = per_sample(loss.for_task(task) if hasattr(loss, "for_task") else loss, task)
    except RecipeError:  # is for no labels
        return None
    return None if found is None else found.ignored


def _setting(loss: Loss, name: str) -> Any:
    """A setting of a loss: an attribute of a module, or a parameter of what is called with its default, or what is bound to it."""
    if not isinstance(loss, nn.Module | partial) and name in getattr(loss, "__dict__", {}):
        return vars(loss)[name]
    if isinstance(loss, nn.Module) and name in {*vars(loss), *loss._buffers, *loss._parameters}:
        return getattr(loss, name)
    called = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        parameter = inspect.signature(called).parameters.get(name)
    except (TypeError, ValueError):
        return None
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _with(labels: Tensor, label: int) -> Tensor:
    """Labels of which the third is another."""
    changed = labels.clone()
    changed[2] = label
    return changed


def _changed(loss: Loss, **settings: Any) -> Loss:
    """The same loss with other settings, such as its reduction."""
    if not (isinstance(loss, nn.Module) and settings.keys() <= vars(loss).keys()):
        return partial(loss, **settings)
    module: Any = loss

    def changed(output: Tensor, target: Tensor) -> Tensor:
        before = {name: getattr(module, name) for name in settings}
        vars(module).update(settings)
        try:
            return module(output, target)
        finally:
            vars(module).update(before)

    return changed
