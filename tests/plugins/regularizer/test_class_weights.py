import copy

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from plugins.augmentation.mixup import Mixup
from plugins.base import Batch, RecipeError, Refusal, Selection, Setting, Task
from plugins.regularizer.class_weights import ClassWeights, balanced_weights
from plugins.regularizer.label_smoothing import LabelSmoothing, smooth
from tests.recipes.engine.weighing import EQUAL, STEPS, data, flat, model, numbers, optimizer, train

RARE = [1.0, 5.0, 0.25]


def rare():
    """Samples of three classes of very different size."""
    x, _ = data("plain")
    return x, torch.tensor([0] * 15 + [1] * 3 + [2] * 6)


def of_sklearn(labels, classes):
    there = np.unique(labels)
    weights = dict(zip(there, compute_class_weight("balanced", classes=there, y=labels.numpy()), strict=True))
    return torch.tensor([weights.get(label, 0.0) for label in range(classes)])


@pytest.mark.parametrize("classes", [2, 7])
def test_equals_sklearn(classes):
    labels = torch.cat([torch.randint(classes, (50,)), torch.zeros(30, dtype=torch.long)])
    labels[0] = labels[1] = classes - 1
    expected = of_sklearn(labels, classes)
    found = balanced_weights(torch.bincount(labels, minlength=classes))
    torch.testing.assert_close(found[expected > 0], expected[expected > 0])


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("mode", ["balanced", RARE])
def test_is_torchs_loss_with_class_weights_over_the_whole_step(mode, parts):
    x, y = rare()
    weight = of_sklearn(y, 3).float() if mode == "balanced" else torch.tensor(RARE)
    by_hand = model("plain")
    steps = optimizer(by_hand.parameters())
    for _ in range(STEPS):
        steps.zero_grad()
        functional.cross_entropy(by_hand(x), y, weight).backward()
        steps.step()
    module = train("by_task", x, y, parts, [ClassWeights(mode)])
    torch.testing.assert_close(numbers(module), flat(by_hand), **EQUAL)
    expected = float(functional.cross_entropy(by_hand(x), y).detach())  # so that runs compare
    assert module.metrics["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_multiplies_what_is_there():
    x, y = rare()
    task = Task("", "classification", 3)
    plugin = ClassWeights(RARE)
    plugin.prepare(Setting((4,), (task,)))
    batch = plugin.transform_batch(Batch(x, {"": y}, {"": y}, weight={"": torch.arange(24.0)}), None)
    torch.testing.assert_close(batch.weight[""], torch.arange(24.0) * torch.tensor(RARE)[y])
    soft = plugin.transform_batch(Batch(x, {"": smooth(y, 3, 0.3)}, {"": y}), None)
    torch.testing.assert_close(soft.weight[""], smooth(y, 3, 0.3) @ torch.tensor(RARE))


def test_autocast_does_not_round_the_weights_of_mixed_targets():
    x, y = rare()
    plugin, soft = ClassWeights([1.0, 0.3, 2.7]), smooth(y, 3, 0.37)
    plugin.prepare(Setting((4,), (Task("", "classification", 3),)))
    expected = plugin.transform_batch(Batch(x, {"": soft}, {"": y}), None).weight[""]
    with torch.autocast("cpu", torch.bfloat16):
        found = plugin.transform_batch(Batch(x, {"": soft}, {"": y}), None).weight[""]
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_smoothed_labels_keep_the_weight_of_their_class():
    x, y = rare()
    module = train("by_task", x, y, 4, [LabelSmoothing(0.2), ClassWeights(RARE)], steps=1)
    weight = torch.tensor(RARE)[y]
    values = functional.cross_entropy(model("plain")(x), smooth(y, 3, 0.2), reduction="none")
    torch.testing.assert_close(module.last_objective, ((weight * values).sum() / weight.sum()).detach())


def test_mixed_samples_have_the_weights_of_both():
    """As torch's class weights for mixed targets, which are linear in them."""
    x, y = rare()
    twin = train("by_task", x, y, 1, [ClassWeights(RARE), Mixup(1.0)], steps=STEPS)
    expected = train("by_task", x, y, 1, [Mixup(1.0)], steps=STEPS, loss=nn.CrossEntropyLoss(torch.tensor(RARE)))
    torch.testing.assert_close(numbers(twin), numbers(expected), **EQUAL)


def test_each_task_has_the_weights_of_its_own_classes():
    tasks = (Task("a", "classification", 2), Task("b", "classification", 3), Task("c", "regression", 1))
    a, b = torch.tensor([0, 0, 0, 1]), torch.tensor([2, 1, 0, 2])
    plugin, targets = ClassWeights(), {"a": a, "b": b, "c": torch.rand(4)}
    plugin.prepare(Setting((2,), tasks, training_targets=lambda: iter([targets])))
    batch = plugin.transform_batch(Batch(torch.rand(4, 2), targets, targets), None)
    assert batch.weight.keys() == {"a", "b"}
    torch.testing.assert_close(batch.weight["a"], of_sklearn(a, 2)[a].float())
    torch.testing.assert_close(batch.weight["b"], of_sklearn(b, 3)[b].float())


def test_labels_to_be_ignored_are_no_class():
    x, y = rare()
    ignored = y.masked_fill(torch.arange(24) % 5 == 0, -100)
    module = train("plain", x, ignored, 4, [ClassWeights()])
    gone = train("plain", x[ignored >= 0], y[ignored >= 0], 1, [ClassWeights()])
    torch.testing.assert_close(numbers(module), numbers(gone), **EQUAL)


@pytest.mark.parametrize("mode", ["even", [], [1, -1, 2], [0, 0, 0], [1, float("nan"), 2], [True, 1, 1], 3, None])
def test_refuses_other_modes(mode):
    with pytest.raises(RecipeError, match="mode must be balanced, or a list"):
        ClassWeights(mode)


def test_refuses_data_it_does_not_fit():
    with pytest.raises(RecipeError, match="a weight for each of the 3 classes, got 2"):
        ClassWeights([1, 2]).prepare(Setting((4,), (Task("", "classification", 3),)))
    with pytest.raises(Refusal, match="needs a classification task"):
        ClassWeights().check(Selection([], Setting((4,), (Task("", "regression", 1),))))


def test_a_loader_without_a_length_needs_given_weights():
    setting = Setting((4,), (Task("", "classification", 3),), training_inputs=lambda: iter([]))
    with pytest.raises(RecipeError, match=r"mode=\[…\]"):
        ClassWeights().prepare(setting)
    ClassWeights(RARE).prepare(setting)


def test_the_samples_do_not_change():
    x, y = rare()
    kept = copy.deepcopy((x, y))
    train("by_task", x, y, 2, [ClassWeights()])
    assert torch.equal(x, kept[0]) and torch.equal(y, kept[1])
