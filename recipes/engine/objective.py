"""The losses of all tasks, and what they are divided by over a step, however it is cut into micro-batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from plugins.base import Batch, per_label
from recipes.engine.losses import TaskLoss

Combine = Callable[[Mapping[str, Tensor]], Tensor]  # makes one scalar of the losses of all tasks
NONE: Mapping[str, Any] = MappingProxyType({})


def total_of(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the losses of all tasks."""
    first, *others = losses.values()
    return sum(others, first)


class TaskLosses:
    """The losses of all tasks: as they are minimized, of standardized numbers where a regression is learned so, and as reported.

    What is minimized may be weighted sample by sample (`Batch.weight`); what is reported never is, so that runs compare.

    Args:
        reported: of outputs and targets in the units of the targets, by task.
        minimized: what is minimized instead, by task; called as a :class:`TaskLoss`.
        combine: makes one scalar of them; None: their sum.

    Attributes:
        ignored: the labels that losses leave out, by task.
    """

    def __init__(
        self,
        reported: Mapping[str, TaskLoss],
        minimized: Mapping[str, Callable[..., Tensor]],
        combine: Combine | None = None,
    ) -> None:
        self._reported = dict(reported)
        self._minimized: dict[str, Callable[..., Tensor]] = {**reported, **minimized}
        self.combine: Combine = combine or total_of
        self.ignored = {task: loss.ignored for task, loss in reported.items() if loss.ignored is not None}

    def minimized(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        weight: Mapping[str, Tensor] = NONE,
        totals: Mapping[str, Tensor | float] = NONE,
    ) -> dict[str, Tensor]:
        """The loss of each task as it is minimized.

        Args:
            outputs: of the model, by task.
            targets: as the losses take them, by task.
            weight: of each sample, by task; a task that is not there has none.
            totals: what the sums are divided by, by task; a task that is not there by what its samples here are divided by.
        """
        return {
            task: self._minimized[task](outputs[task], target, weight.get(task), totals.get(task))
            for task, target in targets.items()
        }

    def totals(self, batches: Sequence[Batch], processes: int) -> dict[str, Tensor | float]:
        """What the losses of a step are divided by, over all its micro-batches and processes, where that is not their samples.

        All processes ask at the same time, and for the same tasks.
        """
        drawn = any(batch.correction is not None for batch in batches)
        if len(batches) == processes == 1 and not drawn:
            return {}
        found: dict[str, Tensor] = {}
        for task, loss in self._reported.items():
            weighed = loss.weighs or any(task in batch.weight for batch in batches)
            if not loss.sums and (drawn or weighed):
                # of what is drawn by its loss the weights alone would add up to another number than those of the split
                counted = [batch.counted(task) if weighed else None for batch in batches]
                found[task] = _added(
                    [loss.denominator(batch.targets[task], each) for batch, each in zip(batches, counted, strict=True)], batches
                )
        if found and processes > 1:
            found = dict(zip(found, _over_processes([*found.values()]), strict=True))
        return {**found, **{task: 1.0 for task, loss in self._reported.items() if loss.sums}}

    def weights(self, batches: Sequence[Batch], processes: int, task: str | None) -> Tensor | None:
        """The weights of a task's samples, or labels, over all micro-batches and processes; None: all weigh alike.

        Of a task whose loss is a sum it is 1, by which a sum is divided.

        Args:
            batches: the micro-batches of a step on this process.
            processes: how many there are; all ask at the same time.
            task: whose; None: the mean of those of all tasks.
        """
        if task is not None and self._reported[task].sums:
            return torch.ones((), device=batches[0].device)
        asked = [*self.ignored] if task is None else [task] if task in self.ignored else []
        weighed = bool(asked) or any(batch.weight_of(task) is not None for batch in batches)
        if not weighed and all(batch.correction is None for batch in batches):
            return None
        sums: list[Tensor | float] = []
        for batch in batches:
            weight = batch.counted(task) if weighed else None
            labels = batch.labels[task] if task is not None and self._reported[task].task.shape else None
            if weight is None:
                sums.append(float(len(batch) if labels is None else labels.numel()))
            else:
                sums.append((weight if labels is None else per_label(weight, labels)).sum())
        total = _added(sums, batches)
        return _over_processes([total])[0] if processes > 1 else total

    def of_samples(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each sample as it is minimized, (samples,), by task."""
        return {task: self._minimized[task].of_samples(outputs[task], target) for task, target in targets.items()}  # type: ignore[attr-defined]

    def reported(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each task in the units of the targets, a mean over samples."""
        return {task: self._reported[task].reported(outputs[task], target) for task, target in targets.items()}

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How many samples each reported loss is a mean of, weighted as it weights them; of a task that is not there: all."""
        asked = {task: loss.denominator(targets[task]) for task, loss in self._reported.items() if loss.weighs}
        return {task: count for task, count in asked.items() if isinstance(count, Tensor)}

    def kept(self, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How many samples of each task have a label that its loss does not leave out; of a task that is not there: all."""
        return {task: (labels[task] != label).sum() for task, label in self.ignored.items()}

    def are_alike(self, tasks: Iterable[str]) -> bool:
        """Whether what is minimized of these tasks is what is reported."""
        return all(self._minimized[task] is self._reported[task] and not self._reported[task].sums for task in tasks)


def _added(parts: Sequence[Tensor | float], batches: Sequence[Batch]) -> Tensor:
    """The sum of a number of each micro-batch, where these are."""
    return torch.stack([torch.as_tensor(part, device=batches[0].device) for part in parts]).sum()


def _over_processes(values: Sequence[Tensor]) -> Tensor:
    """The sum of each number over all processes, in one message."""
    together = torch.stack([value.double() for value in values])
    dist.all_reduce(together)
    return together
