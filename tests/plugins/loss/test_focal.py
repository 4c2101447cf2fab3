import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from plugins.base import RecipeError, Task
from plugins.loss.focal import FocalLoss

LABELS = Task("", "multilabel", 4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_several_labels_are_those_of_torchvision(gamma):
    z, labels = 3 * torch.randn(20, 4), torch.rand(20, 4) < 0.3
    expected = sigmoid_focal_loss(z, labels.float(), alpha=-1, gamma=gamma).mean(1)
    torch.testing.assert_close(FocalLoss(gamma).for_task(LABELS)(z, labels), expected)


@pytest.mark.parametrize("places", [(), (3, 2)])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_classes_are_weighed_cross_entropy(gamma, places):
    z, labels = 3 * torch.randn(20, 5, *places), torch.randint(5, (20, *places))
    ce = functional.cross_entropy(z, labels, reduction="none")
    torch.testing.assert_close(FocalLoss(gamma)(z, labels), (1 - torch.exp(-ce)) ** gamma * ce)


def test_probabilities_weigh_what_each_label_has():
    z, shares = torch.randn(20, 5), torch.randn(20, 5).softmax(1)
    of_label = torch.stack([FocalLoss(1.5)(z, torch.full((20,), label)) for label in range(5)], 1)
    torch.testing.assert_close(FocalLoss(1.5)(z, shares), (shares * of_label).sum(1))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_what_is_certain_has_finite_slopes(gamma):
    z = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    for loss, target in (
        (FocalLoss(gamma), torch.tensor([0, 0])),
        (FocalLoss(gamma).for_task(Task("", "multilabel", 2)), torch.ones(2, 2).bool()),
    ):
        values = loss(z, target)
        (slope,) = torch.autograd.grad(values.sum(), z)
        assert values.isfinite().all() and slope.isfinite().all() and slope.abs().max() > 0.1


def test_refuses():
    with pytest.raises(RecipeError, match="loss=focal is for labels, and target price is a regression"):
        FocalLoss().for_task(Task("price", "regression", 1))
    with pytest.raises(RecipeError, match="labels or probabilities of shape"):
        FocalLoss()(torch.randn(3, 4), torch.rand(3, 5))
