"""Whether a loss, ours or somebody's own, fits a target: asked of its values when it is called first, not of its name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from plugins.base import RecipeError, Task
from recipes.data.targets import describe
from recipes.engine.sums import Loss, are_log_probabilities, is_mean_over_samples, takes_labels_like_probabilities

log = logging.getLogger("recipes")

Combine = Callable[[Mapping[str, Tensor]], Tensor]  # makes one scalar of the losses of all tasks


class TaskLoss:
    """The loss of one task, with targets in the shape of the outputs, so that nothing broadcasts.

    Args:
        loss: maps outputs (samples, outputs) and targets to a scalar; one with `for_task` says which it takes for a task.
        task: the target to predict.
        cut: what cuts a step into micro-batches, such as "2 devices"; "" where each step is one.

    Raises:
        RecipeError: at the first call: it does not take such outputs and targets, returns no scalar, is for classes where the
            target holds numbers, takes log-probabilities from a model that returns logits, is no mean over samples where a
            step is cut, or has another scale for softened targets than for labels.
    """

    def __init__(self, loss: Loss, task: Task, cut: str = "") -> None:
        self.loss: Loss = loss.for_task(task) if hasattr(loss, "for_task") else loss
        self.task, self.cut = task, cut
        self._told = False
        self._tried: set[bool] = set()  # with targets of whole numbers, of floats

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over samples, a scalar."""
        if self.task.kind == "regression":
            target = target.reshape(output.shape)
        if target.is_floating_point() in self._tried or not len(output):
            return self.loss(output, target)
        value = self._first(output, target)
        self._tried.add(target.is_floating_point())
        return value

    def _first(self, output: Tensor, target: Tensor) -> Tensor:
        """The value; refuses what does not fit."""
        name, shown = name_of(self.loss), f"target {self.task.name or 'y'} of {describe(self.task)}"
        few = torch.arange(2 if self.task.outputs != 2 else 3, device=output.device) % len(output)
        try:
            with torch.no_grad(), torch.random.fork_rng(_devices(output)), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.loss(output[few], target[few])  # as many samples as outputs would broadcast without an error
            value = self.loss(output, target)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, RecipeError):
                raise
            fix = "cross_entropy" if self.task.kind == "classification" else "mse"
            raise RecipeError(
                f"the loss {name} does not take outputs {tuple(output.shape)} and targets {tuple(target.shape)} ({shown}): "
                f"{str(error).splitlines()[0]}; take loss={fix}, or one of such a form"
            ) from error
        if not isinstance(value, Tensor) or value.ndim or value.is_complex():
            got = f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise RecipeError(f"the loss {name} returns {got}, expected a scalar tensor: the mean over the samples of a batch")
        with torch.no_grad(), torch.random.fork_rng(_devices(output)):
            shares = self.task.kind == "regression" and _are_shares(target)
            if self.task.kind == "regression" and not shares and _is_for_classes(self.loss, output.detach(), target):
                raise RecipeError(
                    f"the loss {name} is for classes: it stays the same when all outputs of a sample grow, and {shown} is a "
                    f"regression; take loss=mse, or give labels as whole numbers"
                )
            if self.task.kind == "classification" and _takes_log_probabilities(self.loss, output.detach(), target):
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
        if softened and not takes_labels_like_probabilities(self.loss, output, self.task):
            raise RecipeError(
                f"the loss {name} has different values for labels and for the same as probabilities, as torch's cross entropy "
                f"has with class weights: softened targets (label smoothing, mixing) would change its scale; leave these "
                f"techniques out, or take loss=cross_entropy"
            )
        if self._told or is_mean_over_samples(self.loss, output, target, self.task):
            return
        if self.cut:
            raise RecipeError(
                f"the loss {name} is no mean over samples (a sum, class weights that divide, or samples compared with each other), "
                f"and with {self.cut} the mean over the pieces of a step would be another: train on one device with "
                f"trainer.accumulate_grad_batches=1, or divide by the number of samples"
            )
        self._told = True
        log.warning(
            "the loss %s is no mean over samples (a sum, class weights that divide, or samples compared with each other): the "
            "losses that are logged are means over batches, and depend on their sizes",
            name,
        )


def _devices(output: Tensor) -> list[torch.device]:
    """Those whose random numbers a loss may draw, beside the CPU's."""
    return [output.device] if output.is_cuda else []


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


def total_of(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the losses of all tasks."""
    first, *others = losses.values()
    return sum(others, first)


class TaskLosses:
    """The losses of all tasks: as they are minimized, of standardized numbers where a regression is learned so, and as reported.

    Args:
        reported: of outputs and targets in the units of the targets, by task.
        minimized: what is minimized instead, by task.
        combine: makes one scalar of them; None: their sum.
    """

    def __init__(
        self,
        reported: Mapping[str, TaskLoss],
        minimized: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
        combine: Combine | None = None,
    ) -> None:
        self._reported = dict(reported)
        self._minimized: dict[str, Callable[[Tensor, Tensor], Tensor]] = {**reported, **minimized}
        self.combine: Combine = combine or total_of

    def minimized(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each task as it is minimized."""
        return {task: self._minimized[task](outputs[task], target) for task, target in targets.items()}

    def reported(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each task in the units of the targets."""
        return {task: self._reported[task](outputs[task], target) for task, target in targets.items()}

    def are_alike(self, tasks: Iterable[str]) -> bool:
        """Whether what is minimized of these tasks is what is reported."""
        return all(self._minimized[task] is self._reported[task] for task in tasks)
