import torch
from torch.nn import functional

from plugins.loss.by_task import LossByTask


def test_labels_and_probabilities_get_cross_entropy():
    output, labels, probabilities = torch.randn(8, 5), torch.randint(5, (8,)), torch.rand(8, 5).softmax(1)
    torch.testing.assert_close(LossByTask()(output, labels), functional.cross_entropy(output, labels, reduction="none"))
    torch.testing.assert_close(LossByTask()(output, probabilities, "mean"), functional.cross_entropy(output, probabilities))


def test_numbers_get_the_squared_error():
    output, target = torch.randn(8, 1), torch.randn(8)
    expected = functional.mse_loss(output[:, 0], target, reduction="none")
    torch.testing.assert_close(LossByTask()(output, target), expected)
    torch.testing.assert_close(LossByTask()(output, target[:, None]), expected)
