import pytest
import torch
from torch.nn import functional

from plugins.base import RecipeError
from plugins.loss.cross_entropy import CrossEntropy


def written_out(output, probabilities):
    shifted = output.double() - output.double().max(1, keepdim=True).values
    return -(probabilities * (shifted - shifted.exp().sum(1, keepdim=True).log())).sum(1)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8])
def test_labels(kind):
    output, labels = 5 * torch.randn(20, 7), torch.randint(7, (20,))
    expected = written_out(output, torch.eye(7, dtype=torch.float64)[labels])
    torch.testing.assert_close(CrossEntropy()(output, labels.to(kind)), expected.float())
    torch.testing.assert_close(CrossEntropy()(output, labels.to(kind), reduction="mean"), expected.mean().float())


def test_probabilities():
    output, probabilities = 5 * torch.randn(20, 7), torch.rand(20, 7).softmax(1)
    torch.testing.assert_close(CrossEntropy()(output, probabilities), written_out(output, probabilities.double()).float())


def test_labels_and_their_one_hot_vectors_have_the_same_gradient():
    labels, gradients = torch.randint(7, (20,)), []
    output = torch.randn(20, 7, requires_grad=True)
    for target in (labels, functional.one_hot(labels, 7).float()):
        gradients += torch.autograd.grad(CrossEntropy()(output, target).sum(), output)
    torch.testing.assert_close(*gradients)


def test_low_precision_outputs_are_summed_in_full_precision():
    output, labels = torch.randn(20, 100).bfloat16(), torch.randint(100, (20,))
    loss = CrossEntropy()(output, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, CrossEntropy()(output.float(), labels))


def test_refuses_what_would_be_zero_for_ever():
    with pytest.raises(RecipeError, match="an output for each class"):
        CrossEntropy()(torch.randn(4, 1), torch.zeros(4, dtype=torch.long))


def test_refuses_the_targets_of_a_regression():
    with pytest.raises(RecipeError, match="loss=mse"):
        CrossEntropy()(torch.randn(4, 3), torch.randn(4))
