import pytest
import torch
from torch.nn import functional

from plugins.base import RecipeError, Task
from plugins.loss.mae import MAE


def test_is_that_of_torch():
    z, y = torch.randn(20, 3), torch.randn(20, 3)
    torch.testing.assert_close(MAE()(z, y), functional.l1_loss(z, y, reduction="none").mean(1))
    torch.testing.assert_close(MAE()(z[:, :1], y[:, 0]), (z[:, 0] - y[:, 0]).abs())


def test_low_precision_outputs_are_taken_in_full_precision():
    z, y = torch.randn(20, 3).bfloat16(), 100 + torch.randn(20, 3)
    assert torch.equal(MAE()(z, y), MAE()(z.float(), y))


def test_refuses():
    with pytest.raises(RecipeError, match="loss=mae is for numbers, and target y has labels: type loss=cross_entropy"):
        MAE().for_task(Task("", "classification", 3))
    with pytest.raises(RecipeError, match="loss=mae is for numbers, and target tags has labels: type loss=bce"):
        MAE().for_task(Task("tags", "multilabel", 3))
    with pytest.raises(RecipeError, match=r"one shape, got \(4, 3\) and \(4, 2\)"):
        MAE()(torch.randn(4, 3), torch.randn(4, 2))
    with pytest.raises(RecipeError, match=r"one shape, got \(4, 3\) and \(4,\)"):
        MAE()(torch.randn(4, 3), torch.randn(4))
