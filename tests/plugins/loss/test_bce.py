import pytest
import torch
from torch.nn import functional

from plugins.base import RecipeError, Task
from plugins.loss.bce import BinaryCrossEntropy

LABELS, CLASSES = Task("", "multilabel", 4), Task("", "classification", 4)


@pytest.mark.parametrize("pos_weight", [None, 2.5, [0.5, 1.0, 3.0, 7.0]])
def test_several_labels_are_those_of_torch(pos_weight):
    z, labels = 5 * torch.randn(20, 4), torch.rand(20, 4) < 0.3
    weight = None if pos_weight is None else torch.as_tensor(pos_weight)
    expected = functional.binary_cross_entropy_with_logits(z, labels.float(), pos_weight=weight, reduction="none")
    torch.testing.assert_close(BinaryCrossEntropy(pos_weight=pos_weight).for_task(LABELS)(z, labels), expected.mean(1))


def test_softened_labels_are_those_of_torch():
    z, shares = 5 * torch.randn(20, 4), torch.rand(20, 4)
    expected = functional.binary_cross_entropy_with_logits(z, shares, reduction="none").mean(1)
    torch.testing.assert_close(BinaryCrossEntropy().for_task(LABELS)(z, shares), expected)


@pytest.mark.parametrize("places", [(), (3, 2)])
def test_of_classes_each_is_against_the_rest(places):
    z, labels = torch.randn(20, 4, *places), torch.randint(4, (20, *places))
    loss = BinaryCrossEntropy(pos_weight=[1.0, 2.0, 3.0, 4.0]).for_task(CLASSES)
    one_hot = functional.one_hot(labels, 4).movedim(-1, 1).float()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(-1, *[1] * len(places))
    expected = functional.binary_cross_entropy_with_logits(z, one_hot, pos_weight=weight, reduction="none").mean(1)
    torch.testing.assert_close(loss(z, labels), expected)
    torch.testing.assert_close(loss(z, one_hot), expected)


def test_large_logits_have_finite_values_and_slopes():
    z = torch.tensor([[500.0, -500.0, 500.0, -500.0]], requires_grad=True)
    value = BinaryCrossEntropy().for_task(LABELS)(z, torch.tensor([[True, False, False, True]]))
    assert value.item() == 250.0 and torch.autograd.grad(value.sum(), z)[0].tolist() == [[0.0, 0.0, 0.25, -0.25]]


def test_low_precision_outputs_are_taken_in_full_precision():
    z, labels = torch.randn(20, 4).bfloat16(), torch.rand(20, 4) < 0.5
    loss = BinaryCrossEntropy().for_task(LABELS)
    assert torch.equal(loss(z, labels), loss(z.float(), labels))


def test_makes_probabilities_of_several_labels_alone():
    loss = BinaryCrossEntropy(threshold=0.2)
    assert loss.for_task(LABELS).takes_logits and not BinaryCrossEntropy().for_task(CLASSES).takes_logits
    assert loss.refine(LABELS).threshold == 0.2 and loss.refine(CLASSES) == CLASSES


def test_refuses():
    with pytest.raises(RecipeError, match="loss=bce is for labels, and target y is a regression: type loss=mse"):
        BinaryCrossEntropy().for_task(Task("", "regression", 4))
    with pytest.raises(RecipeError, match="a weight for each of the 4 labels of tags, got 2"):
        BinaryCrossEntropy(pos_weight=[1.0, 2.0]).for_task(Task("tags", "multilabel", 4))
    with pytest.raises(RecipeError, match="loss.threshold is for several labels"):
        BinaryCrossEntropy(threshold=0.3).for_task(CLASSES)
    for wrong in (0, -1.0, True, [], [1.0, 0.0], "two"):
        with pytest.raises(RecipeError, match="pos_weight must be a number > 0, or a list"):
            BinaryCrossEntropy(pos_weight=wrong)
    with pytest.raises(RecipeError, match=r"probabilities of shape \(3, 4\), got \(3, 2\)"):
        BinaryCrossEntropy().for_task(LABELS)(torch.randn(3, 4), torch.ones(3, 2).bool())
    with pytest.raises(RecipeError, match="an output for each class"):
        BinaryCrossEntropy()(torch.randn(3, 1), torch.zeros(3).long())
