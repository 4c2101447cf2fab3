"""What an evaluation makes of outputs and labels that a test has drawn: through the engine, in batches of several sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from plugins.base import Batch, Plugin, Setting, Task
from plugins.loss.by_task import LossByTask
from recipes.engine.measuring import Measuring
from recipes.engine.module import RecipeModule

SIZES = (7, 1, 0, 20, 32)


def built(*plugins: Plugin, tasks: tuple[Task, ...], loss=None) -> RecipeModule:
    """A module with some plugins, for some tasks."""
    model = nn.Linear(3, tasks[0].outputs)
    module = RecipeModule(
        model, loss or nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1), standardize_targets=False
    )
    module.build(plugins, Setting((3,), tasks), devices=1)
    return module


def measured(plugin: Plugin, outputs: Tensor, labels: Tensor, classes: int = 0) -> float:
    """What a metric is of all samples; of a regression where `classes` is 0, of several labels a sample where they are truth values."""
    kind = "multilabel" if labels.dtype == torch.bool else "classification" if classes else "regression"
    task = Task("", kind, classes or outputs.shape[1])
    measuring = Measuring(built(plugin, tasks=(task,), loss=LossByTask() if kind == "multilabel" else None))
    sizes = [*SIZES, len(outputs) - sum(SIZES)]
    for output, label in zip(outputs.split(sizes), labels.split(sizes), strict=True):
        measuring.add({"": output}, Batch(output, {"": label}, {"": label}))
    found = measuring.compute()
    assert list(found) == [plugin.option]
    return found[plugin.option]


def drawn_labels(labels: int, samples: int = 200, missing: int | None = None) -> tuple[Tensor, Tensor]:
    """Logits that have learned something, and which of several labels each sample has; one of them is nowhere."""
    there = torch.rand(samples, labels) < torch.linspace(0.1, 0.6, labels)
    if missing is not None:
        there[:, missing] = False
    return 2 * torch.randn(samples, labels) + 3 * there.float() - 1.5, there


def drawn(classes: int, samples: int = 200, missing: int | None = None) -> tuple[Tensor, Tensor]:
    """Logits that have learned something, and labels, without one of the classes."""
    labels = torch.randint(classes, (samples,))
    labels = labels.where(labels != missing, (labels + 1) % classes) if missing is not None else labels
    return 2 * torch.randn(samples, classes) + 2 * nn.functional.one_hot(labels, classes), labels


def expect_mean_over_labels_that_occur(plugin: Plugin, oracle: Callable[..., float]) -> None:
    """A label that no sample has, and that none is predicted to have, counts for nothing; one that is predicted once counts.

    Args:
        plugin: the metric.
        oracle: scikit-learn's, of truth values (samples, labels).
    """
    outputs, labels = drawn_labels(5, missing=2)
    outputs[:, 2] = -4.0
    there = [0, 1, 3, 4]
    expected = oracle(labels[:, there], outputs[:, there] >= 0, average="macro", zero_division=0)
    assert measured(plugin, outputs, labels) == pytest.approx(expected, abs=1e-6)
    outputs[0, 2] = 4.0  # predicted once
    expected = oracle(labels, outputs >= 0, average="macro", zero_division=0)
    assert measured(plugin, outputs, labels) == pytest.approx(expected, abs=1e-6)
