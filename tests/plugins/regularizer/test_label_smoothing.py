import copy

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import Batch, Refusal, Selection, Setting, Task
from plugins.loss.by_task import LossByTask
from plugins.regularizer.label_smoothing import LabelSmoothing, smooth, smooth_labels
from recipes.engine.module import RecipeModule


class Module:
    def __init__(self, *tasks):
        self.setting = Setting((2,), tasks)


@pytest.mark.parametrize("eps", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_definitions_written_out(eps, classes):
    labels = torch.randint(classes, (9,))
    for row, label in zip(smooth(labels, classes, eps, "others"), labels, strict=True):
        expected = [1 - eps if j == label else eps / (classes - 1) for j in range(classes)]
        torch.testing.assert_close(row, torch.tensor(expected))
    for row, label in zip(smooth(labels, classes, eps, "all"), labels, strict=True):
        expected = [(1 - eps) * (j == label).item() + eps / classes for j in range(classes)]
        torch.testing.assert_close(row, torch.tensor(expected))


@pytest.mark.parametrize("eps", [0.1, 0.4])
def test_equals_torch(eps):
    k, output, labels = 7, torch.randn(20, 7), torch.randint(7, (20,))
    for spread, same in (("all", eps), ("others", eps * k / (k - 1))):
        expected = functional.cross_entropy(output, labels, label_smoothing=same)
        torch.testing.assert_close(functional.cross_entropy(output, smooth(labels, k, eps, spread)), expected)


@pytest.mark.parametrize("spread", ["others", "all"])
def test_probabilities_are_smoothed_class_by_class(spread):
    a, b, share = torch.randint(4, (9,)), torch.randint(4, (9,)), torch.rand(9, 1)
    mixed = share * functional.one_hot(a, 4) + (1 - share) * functional.one_hot(b, 4)
    expected = share * smooth(a, 4, 0.2, spread) + (1 - share) * smooth(b, 4, 0.2, spread)
    torch.testing.assert_close(smooth(mixed, 4, 0.2, spread), expected)


def test_every_classification_task_and_no_other_and_the_labels_stay():
    labels = {"digit": torch.randint(10, (6,)), "age": torch.rand(6), "speaker": torch.randint(3, (6,))}
    kept = {task: label.clone() for task, label in labels.items()}
    module = Module(Task("digit", "classification", 10), Task("age", "regression", 1), Task("speaker", "classification", 3))
    batch = LabelSmoothing(0.2).transform_batch(Batch(torch.randn(6, 2), labels, labels), module)
    assert batch.targets["digit"].shape == (6, 10) and batch.targets["speaker"].shape == (6, 3)
    torch.testing.assert_close(batch.targets["speaker"].max(1).values, torch.full((6,), 0.8))
    assert batch.targets["age"] is labels["age"] and batch.labels is labels
    assert all(torch.equal(labels[task], kept[task]) for task in kept)


def test_a_training_run_equals_one_with_the_smoothed_loss_of_torch():
    model = nn.Linear(5, 4)
    loader = DataLoader(TensorDataset(torch.randn(32, 5), torch.randint(4, (32,))), 8)
    weights = []
    for loss, plugins in (
        (LossByTask(), [LabelSmoothing(0.3, "all")]),
        (lambda output, target: functional.cross_entropy(output, target, label_smoothing=0.3), []),
    ):
        module = RecipeModule(copy.deepcopy(model), loss, lambda groups: torch.optim.SGD(groups, 0.5))
        trainer = L.Trainer(
            max_steps=4, accelerator="cpu", callbacks=plugins, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, loader)
        weights.append(module.model.weight)
    torch.testing.assert_close(*weights)


def test_refuses():
    for task, message in ((Task("", "regression", 1), "the data has none"), (Task("", "classification", 1), "each class")):
        with pytest.raises(Refusal, match=message):
            LabelSmoothing().check(Selection([], Setting((2,), (task,))))


@pytest.mark.parametrize("eps", [0.1, 0.3])
def test_several_labels_are_each_smoothed_as_two_classes(eps):
    there = torch.rand(20, 4) < 0.4
    for spread in ("others", "all"):
        found = smooth_labels(there, eps, spread)
        torch.testing.assert_close(found.flatten(), smooth(there.flatten().long(), 2, eps, spread)[:, 1])
        torch.testing.assert_close(smooth_labels(there.float(), eps, spread), found)
