import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.base import RecipeError
from plugins.loss.hinge import Hinge


@pytest.mark.parametrize("margin", [0.3, 1.0, 4.0])
def test_labels_are_those_of_torch_times_the_classes(margin):
    scores, labels = 3 * torch.randn(20, 7), torch.randint(7, (20,))
    expected = 7 * nn.MultiMarginLoss(margin=margin, reduction="none")(scores, labels)
    torch.testing.assert_close(Hinge(margin)(scores, labels), expected)


def test_probabilities_weigh_what_each_label_has():
    scores, shares = 3 * torch.randn(20, 7), torch.randn(20, 7).softmax(1)
    expected = torch.zeros(20)
    for i in range(20):
        for y in range(7):
            expected[i] += shares[i, y] * sum((1.5 + scores[i, j] - scores[i, y]).clamp_min(0) for j in range(7) if j != y)
    torch.testing.assert_close(Hinge(1.5)(scores, shares), expected)


def test_labels_and_their_one_hot_vectors_have_the_same_value_and_gradient():
    labels, found = torch.randint(7, (20,)), []
    scores = torch.randn(20, 7, requires_grad=True)
    for target in (labels, functional.one_hot(labels, 7).float()):
        values = Hinge()(scores, target)
        found.append((values, *torch.autograd.grad(values.sum(), scores)))
    torch.testing.assert_close(*found)


def test_low_precision_outputs_are_summed_in_full_precision():
    scores, labels = torch.randn(20, 100).bfloat16(), torch.randint(100, (20,))
    assert torch.equal(Hinge()(scores, labels), Hinge()(scores.float(), labels))


def test_refuses_the_targets_of_a_regression():
    with pytest.raises(RecipeError, match="an output for each class"):
        Hinge()(torch.randn(4, 1), torch.randn(4, 1))
    with pytest.raises(RecipeError, match="loss=mse"):
        Hinge()(torch.randn(4, 3), torch.randn(4))
