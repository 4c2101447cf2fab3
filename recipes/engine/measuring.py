"""What plugins measure with torchmetrics objects: over all samples of a split, whichever process and batch they came in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from plugins.base import Batch, RecipeError, Task, own_metrics
from plugins.counting import widest
from recipes.engine.parts import Whole


class Measuring:
    """The torchmetrics objects of one evaluation of a :class:`RecipeModule`; they are new for each, so none knows of another."""

    def __init__(self, module: Whole) -> None:
        assert module.setting is not None
        self.wide, self.tasks = widest(module.device), module.setting.tasks
        self.metrics: dict[str, tuple[str, str, Any]] = {}  # owner, task and object, by name
        for name, (plugin, task, metric) in own_metrics(module.hooks["metrics"], self.tasks).items():
            metric = metric.to(module.device)
            if self.wide == torch.float64:  # sums over a long split lose nothing, nor do counts, which become floats too
                metric = metric.set_dtype(self.wide)
            self.metrics[name] = plugin.state_key, task, metric
            module.rulers.setdefault(name, dict(plugin.ruler(name)))

    @torch.no_grad()
    def add(self, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Count a batch: outputs as the model gives them or as log-probabilities, compared with the true targets."""
        measured = {task for _, task, _ in self.metrics.values()}
        pairs = {
            task.name: PAIRS[task.kind](task, task.point(outputs[task.name]).to(self.wide), batch.labels[task.name])
            for task in self.tasks
            if task.name in measured
        }
        for name, (owner, task, metric) in self.metrics.items():
            predicted, true = pairs[task]
            # what keeps all samples learns from an empty batch what shape they have, which processes must agree on
            if len(true) or any(isinstance(state, list) for state in metric.metric_state.values()):
                with _telling(owner, name):
                    metric.update(predicted, true)

    def compute(self) -> dict[str, float]:
        """Each metric over all samples of all processes, which take part together."""
        found = {}
        for name, (owner, _, metric) in self.metrics.items():
            with _telling(owner, name):
                value = metric.compute()
            if not isinstance(value, Tensor) or value.numel() != 1:
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise RecipeError(f"{owner}: {name} must compute one number, got {got}; have it averaged over the classes")
            found[name] = float(value)
        return found


def _of_classes(task: Task, output: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (samples, classes) and labels (samples,); what names no class, or is left out by the loss, is left out."""
    p = output.softmax(1).movedim(1, -1).reshape(-1, output.shape[1])
    labels = labels.long().flatten()
    known = task.known(labels)
    return (p, labels) if bool(known.all()) else (p[known], labels[known])


def _of_numbers(task: Task, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions and targets, both (samples, columns)."""
    return output.flatten(1), target.to(output.dtype).reshape(output.shape).flatten(1)


def _of_labels(task: Task, output: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and labels of 0 and 1, both (samples, labels)."""
    return output.sigmoid(), labels.long()


PAIRS = {"classification": _of_classes, "multilabel": _of_labels, "regression": _of_numbers}


@contextmanager
def _telling(owner: str, name: str) -> Iterator[None]:
    """Tell in one line what an object does not take; a class without samples needs no warning for each batch."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torchmetrics")
            yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, RecipeError):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError(f"{owner} cannot measure {name}: {first}") from error
