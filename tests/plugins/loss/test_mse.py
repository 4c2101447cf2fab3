import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from plugins.loss.mse import MSE


@pytest.mark.parametrize(
    ("output", "target"), [((9, 1), (9,)), ((9,), (9, 1)), ((9,), (9,)), ((9, 1), (9, 1)), ((9, 4), (9, 4))]
)
def test_equals_the_mean_of_squares(output, target):
    output, target = torch.randn(output), torch.randn(target)
    squares = (output.numpy().reshape(9, -1) - target.numpy().reshape(9, -1)) ** 2
    np.testing.assert_allclose(MSE()(output, target), squares.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(MSE()(output, target, "mean"), np.mean(squares), rtol=1e-5, atol=1e-6)


def test_whole_numbers_are_values_where_there_is_one_output():
    output, target = torch.randn(9, 1), torch.randint(50, (9,))
    torch.testing.assert_close(MSE()(output, target), (output[:, 0] - target) ** 2)


def test_labels_are_one_hot_where_there_are_classes():
    output, labels = torch.randn(9, 4), torch.randint(4, (9,))
    torch.testing.assert_close(MSE()(output, labels), ((output - torch.eye(4)[labels]) ** 2).mean(1))


def test_low_precision_and_double_outputs():
    target = torch.randn(9)
    assert MSE()(torch.randn(9, 1).bfloat16(), target).dtype == torch.float32
    assert MSE()(torch.randn(9, 1).double(), target).dtype == torch.float64


def test_refuses_to_broadcast():
    with pytest.raises(RecipeError, match=r"one shape, got \(9, 2\) and \(9,\)"):
        MSE()(torch.randn(9, 2), torch.randn(9))
