"""Whether a loss, ours or somebody's own, fits a target: asked of its values when it is called first, not of its name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from plugins.base import RecipeError, Task, per_label
from plugins.logits import of_task
from recipes.config.errors import first_line
from recipes.data.targets import describe
from recipes.engine.samples import ERRORS, as_taken, labels_of, per_sample
from recipes.engine.sums import Loss, are_log_probabilities, is_mean_over_samples, takes_labels_like_probabilities

log = logging.getLogger("recipes")
FITTING = {"classification": "cross_entropy", "multilabel": "bce", "regression": "mse"}  # a loss for each kind of task


class TaskLoss:
    """The loss of one task, with targets in the shape of the outputs, so that nothing broadcasts.

    Args:
        loss: maps outputs (samples, outputs) and targets to one value a sample, or to a scalar; of class maps, outputs (samples, classes,
            *places), to one value a label, (samples, *places), one a sample, or a scalar; one with `for_task` says which it
            takes for a task. Where it can be asked for either by `reduction`, as torch's, see :class:`SampleLoss`.
        task: the target to predict.
        cut: what cuts a step into micro-batches, such as "2 devices"; "" where each step is one.
        may_ignore: whether there may be labels that the loss ignores; where it is known that there are none it costs nothing.

    Attributes:
        sums: whether what is minimized is a sum over samples.
        weighs: whether samples may count in it as more or less than one.
        ignored: the label that it leaves out; None: there is none.

    Raises:
        RecipeError: at the first call: it does not take such outputs and targets, returns neither a scalar nor a value a sample, is
            for classes where the target holds numbers, takes log-probabilities from a model that returns logits; is a scalar that
            is no mean over samples where a step is cut, has another scale for softened targets than for labels, or is to be weighted.
    """

    def __init__(self, loss: Loss, task: Task, cut: str = "", may_ignore: bool = True) -> None:
        self.loss: Loss = of_task(loss, task)
        if task.kind == "multilabel" and not getattr(self.loss, "takes_logits", True):
            raise RecipeError(
                f"the loss {name_of(self.loss)} does not train logits, of which the probability of each label is made, and target "
                f"{task.name or 'y'} has several labels a sample: take loss=bce"
            )
        self.task, self.cut = task, cut
        self.single = per_sample(self.loss, task)
        if self.single is not None and not may_ignore:
            self.single.ignored = None
        self._fused = self.loss if self.single is None else self.single.fused
        self.sums = self.single is not None and self.single.sums
        self.ignored = None if self.single is None else self.single.ignored
        self.weighs = self.single is not None and (self.sums or self.single.divides or self.ignored is not None)
        self._is_vector = False  # one of somebody's own, which returns a value a sample, or a label
        self._per_label = self.single is not None  # whether each label of a sample has a value
        self._told = False
        self._in_units: TaskLoss | None = None  # as it is reported, where that is another
        self._tried: set[bool] = set()  # with targets of whole numbers, of floats

    def __call__(
        self, output: Tensor, target: Tensor, weight: Tensor | None = None, total: Tensor | float | None = None
    ) -> Tensor:
        """The mean over samples, a scalar; of a loss that is a sum, the sum.

        Args:
            output: (samples, outputs), of class maps (samples, classes, *places).
            target: as the loss takes it.
            weight: of each sample, (samples,), or label, (samples, *places); None: 1.
            total: what the sum of the values is divided by; None: the :meth:`denominator` of these samples.
        """
        target = as_taken(self.task, output, target)
        if target.is_floating_point() in self._tried or not len(output):
            return self._value(output, target, weight, total)
        value = self._first(output, target, weight, total)
        self._tried.add(target.is_floating_point())
        return value

    def of_samples(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample, (samples,); of class maps the mean over its labels."""
        target = as_taken(self.task, output, target)
        if self.single is None and not self._tried:
            self(output.detach(), target)  # which finds out
        if self.single is None and not self._is_vector:
            raise RecipeError(
                f"the loss {name_of(self.loss)} returns one number for all samples, and a technique asks for that of each (as "
                f"+sampling=importance or +curriculum=selective_backprop): let it return one value a sample, or take loss=by_task"
            )
        values = self.loss(output, target) if self.single is None else self.single.values(output, target)
        return values if values.ndim < 2 else values.flatten(1).mean(1)

    def reported(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over samples, also of a loss that is a sum, which would depend on their number."""
        if self._in_units is not None:
            return self._in_units.reported(output, target)
        return self(output, target, None, self.denominator(target) if self.sums else None)

    def measure_in(self, deviation: Callable[[], Tensor]) -> None:
        """Have what is reported measured in the units of the targets, of which a loss has a parameter that counts deviations."""
        if hasattr(self.loss, "in_units"):
            self._in_units = TaskLoss(self.loss.in_units(deviation), self.task, self.cut)

    def denominator(self, target: Tensor, weight: Tensor | None = None) -> Tensor | float:
        """What the sum of the values of these samples is divided by, of a mean: it depends on no output."""
        if self.task.shape and self.single is None and not self._tried and len(target):
            self._try_blank(target)
        divisors = None if self.single is None else self.single.divisors(target)
        if self.task.shape and self._per_label:
            weight = None if weight is None else per_label(weight, labels_of(target))
            if divisors is None and weight is None:
                return float(labels_of(target).numel())
        if divisors is None:
            return float(len(target)) if weight is None else weight.sum()
        return (divisors if weight is None else divisors * weight).sum()

    def _value(
        self, output: Tensor, target: Tensor, weight: Tensor | None = None, total: Tensor | float | None = None
    ) -> Tensor:
        """As :meth:`__call__`; what is neither weighted nor divided in another way is one call of the loss."""
        single = self.single
        if weight is None and total is None and (single is None or single.is_fused(target)):
            value = self._fused(output, target)
            return value.mean() if self._is_vector else value
        if single is None and not self._is_vector:
            raise RecipeError(
                f"the loss {name_of(self.loss)} returns one number for all samples, and they are weighted (as by "
                f"data.weights, +regularizer=class_weights or +sampling=importance): let it return one value a sample, or take loss=by_task"
            )
        values = self.loss(output, target) if single is None else single.values(output, target)
        if weight is not None and weight.shape != values.shape:
            if weight.ndim > values.ndim:
                raise RecipeError(
                    f"the loss {name_of(self.loss)} returns one value a sample, and the labels of a sample are weighted one by one (as by "
                    f"+regularizer=class_weights): let it return one value a label, or take loss=by_task"
                )
            weight = per_label(weight, values)
        values = values if weight is None else values * weight
        if total is None:
            total = 1.0 if self.sums else self.denominator(target, weight)
        if isinstance(total, Tensor):
            total = total.where(total != 0, 1.0)  # nothing counts, and nothing is to be learned
        return values.sum() / total

    def _few(self, values: Tensor) -> Tensor:
        """Which samples are tried: not as many as there are outputs."""
        return torch.arange(2 if self.task.outputs != 2 else 3, device=values.device) % len(values)

    def _learn_form(self, values: Any, target: Tensor) -> None:
        """Whether a loss of somebody's own has a value a sample, or a label."""
        if self.single is None and isinstance(values, Tensor):
            self._per_label = bool(self.task.shape) and values.shape == labels_of(target).shape
            self._is_vector = values.shape == target.shape[:1] or self._per_label

    def _try_blank(self, target: Tensor) -> None:
        """The form of a loss of class maps, which is asked for before there are outputs; what does not fit is refused later."""
        few = target[self._few(target)]
        blank = torch.zeros(len(few), self.task.outputs, *labels_of(few).shape[1:], device=few.device)
        with torch.no_grad(), torch.random.fork_rng(_devices(few)), warnings.catch_warnings(), suppress(*ERRORS):
            warnings.simplefilter("ignore")
            self._learn_form(self.loss(blank, few), few)

    def _first(self, output: Tensor, target: Tensor, weight: Tensor | None, total: Tensor | float | None) -> Tensor:
        """The value; refuses what does not fit."""
        name, shown = name_of(self.loss), f"target {self.task.name or 'y'} of {describe(self.task)}"
        few = self._few(output)
        try:
            with torch.no_grad(), torch.random.fork_rng(_devices(output)), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # as many samples as outputs would broadcast without an error
                of_few = (self.loss if self.single is None else self.single.values)(output[few], target[few])
                self._learn_form(of_few, target[few])
            value = self._value(output, target, weight, total)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, RecipeError):
                raise
            fix = FITTING[self.task.kind]
            raise RecipeError(
                f"the loss {name} does not take outputs {tuple(output.shape)} and targets {tuple(target.shape)} ({shown}): "
                f"{first_line(error)}; take loss={fix}, or one of such a form"
            ) from error
        if not isinstance(value, Tensor) or value.ndim or value.is_complex():
            got = f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise RecipeError(
                f"the loss {name} returns {got}, expected a scalar tensor, the mean over the samples of a batch, or one value a sample"
            )
        with torch.no_grad(), torch.random.fork_rng(_devices(output)):
            shares = self.task.kind == "regression" and _are_shares(target)
            if self.task.kind != "classification" and not shares and _is_for_classes(self._value, output.detach(), target):
                what = "is a regression" if self.task.kind == "regression" else "are no classes"
                instead = (
                    " or give labels as whole numbers"
                    if self.task.kind == "regression"
                    else " which decides each label by itself"
                )
                raise RecipeError(
                    f"the loss {name} is for classes: it stays the same when all outputs of a sample grow, and {shown} {what}; take "
                    f"loss={FITTING[self.task.kind]},{instead}"
                )
            if self.task.kind == "classification" and _takes_log_probabilities(self._value, output.detach(), target):
                raise RecipeError(
                    f"the loss {name} takes log-probabilities, and the model returns others: take loss=cross_entropy, or let "
                    f"its forward end with log_softmax"
                )
        self._expect_sums(output, target)
        return value

    def _expect_sums(self, output: Tensor, target: Tensor) -> None:
        """Refuse, or tell, what a mean over samples would get wrong."""
        name = name_of(self.loss)
        softened = self.task.kind == "classification" and target.is_floating_point()
        if softened and not takes_labels_like_probabilities(self._value, output, self.task):
            raise RecipeError(
                f"the loss {name} has different values for labels and for the same as probabilities: softened targets (label "
                f"smoothing, mixing) would change its scale; leave these techniques out, or take loss=cross_entropy"
            )
        if self._told:
            return
        if self.sums:
            self._told = True
            log.warning(
                "the loss %s is a sum over samples: a step minimizes the sum over all of its samples, and the losses that are "
                "logged are means",
                name,
            )
            return
        asked = self._value if self._is_vector else self.loss
        if self.single is not None or is_mean_over_samples(asked, output, target, self.task):
            return
        if self.cut:
            raise RecipeError(
                f"the loss {name} is no mean over samples (a sum, weights that divide, or samples compared with each other), "
                f"and with {self.cut} the mean over the pieces of a step would be another: let it return one value a sample, or "
                f"train on one device with trainer.accumulate_grad_batches=1"
            )
        self._told = True
        log.warning(
            "the loss %s is no mean over samples (a sum, weights that divide, or samples compared with each other): the "
            "losses that are logged are means over batches, and depend on their sizes",
            name,
        )


def _devices(output: Tensor) -> list[torch.device]:
    """Those whose random numbers a loss may draw, beside the CPU's."""
    return [output.device] if output.is_cuda else []


def refined(loss: Any, task: Task) -> Task:
    """The task with what a loss says of it, such as the probability from which on a label counts as predicted."""
    return loss.refine(task) if hasattr(loss, "refine") else task


def name_of(loss: Loss) -> str:
    """What a loss is called."""
    return getattr(loss, "__name__", type(loss).__name__)


def _is_for_classes(loss: Loss, output: Tensor, target: Tensor) -> bool:
    """Whether the loss does not change when all outputs of one sample grow, as those that begin with a softmax."""
    step = 1 + output[0].abs().max() + target[0].abs().max()
    values = [loss(_grown(output, step * factor), target) for factor in (0, 1, 3)]
    return all(torch.isclose(value, values[0], rtol=1e-4, atol=1e-6) for value in values) and bool(values[0].isfinite())


def _are_shares(target: Tensor) -> bool:
    """Whether each sample's numbers are probabilities of classes, which a loss of classes may well be given."""
    return target.shape[1] > 1 and bool((target >= 0).all() and ((target.float().sum(1) - 1).abs() <= 1e-3).all())


def _grown(output: Tensor, by: Tensor) -> Tensor:
    """A copy whose first sample has larger outputs."""
    grown = output.clone()
    grown[0] += by
    return grown


def _takes_log_probabilities(loss: Loss, output: Tensor, target: Tensor) -> bool:
    """Whether the loss falls by as much as all outputs grow, and the outputs are no log-probabilities."""
    if are_log_probabilities(output):
        return False
    low, high = (loss(output + grown, target) for grown in (0, 100))
    return bool(high < low - 50)
