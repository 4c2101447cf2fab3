"""What penalties on predictions share: the probabilities of all outcomes, and a mean over the samples that count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from plugins.base import Batch, Refusal, Selection, Task

if TYPE_CHECKING:
    from jaxtyping import Float


def log_probabilities(logits: Float[Tensor, "samples outputs *places"], kind: str) -> Float[Tensor, "samples outcomes *rest"]:
    """ln p of all outcomes, in dimension 1: of the classes, or of yes and no for each of several labels, (samples, 2, labels)."""
    if kind == "multilabel":
        return functional.logsigmoid(torch.stack([logits.float(), -logits.float()], 1))
    return logits.float().log_softmax(1)


def mean_that_counts(values: Float[Tensor, " samples *rest"], batch: Batch, task: str) -> Float[Tensor, ""]:
    """The mean over samples, labels and places; the value is 0 where the weight is, as it is where the loss ignores a label.

    Each value counts as much as makes up for how often its sample is drawn.
    """
    if batch.correction is not None:
        values = values * batch.correction.view(-1, *[1] * (values.ndim - 1))
    weight = batch.weight.get(task)
    if weight is None:
        return values.mean()
    return (values * (weight > 0).view(*weight.shape, *[1] * (values.ndim - weight.ndim))).mean()


def total_over_tasks(tasks: Iterable[Task], batch: Batch, values: Callable[[Task], Tensor]) -> Float[Tensor, ""]:
    """The sum over all tasks with classes or labels of the means of what `values` gives for each sample of one."""
    return torch.stack([mean_that_counts(values(task), batch, task.name) for task in tasks if task.kind != "regression"]).sum()


def expect_classes(option: str, selection: Selection) -> None:
    """Refuse data of which no target has classes or labels."""
    if all(task.kind == "regression" for task in selection.setting.tasks):
        raise Refusal(f"{option} needs a classification task, and the data has none: leave it out")
