from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.base import RecipeError, Setting, Task
from plugins.loss.huber import Huber
from recipes.engine.module import RecipeModule


@pytest.mark.parametrize("delta", [0.3, 1.0, 7.0])
def test_is_that_of_torch(delta):
    z, y = 3 * torch.randn(20, 3), 3 * torch.randn(20, 3)
    expected = functional.huber_loss(z, y, delta=delta, reduction="none").mean(1)
    torch.testing.assert_close(Huber(delta)(z, y), expected)


def test_counts_deviations_of_the_targets_in_what_is_minimized_and_in_what_is_reported():
    y = torch.randn(200, 2) * torch.tensor([100.0, 0.01]) + torch.tensor([500.0, -3.0])
    module = RecipeModule(nn.Linear(3, 2), Huber(0.5), partial(torch.optim.SGD, lr=0.1))
    tasks = (Task("", "regression", 2),)
    module.build([], Setting((3,), tasks, training_targets=lambda: iter([{"": y}])), devices=1)
    deviation, output = y.double().std(0, correction=0).float(), y + y.std(0) * torch.randn(200, 2)
    r = (y - output) / deviation
    minimized = module.losses({"": output}, {"": y})[""]
    torch.testing.assert_close(minimized, functional.huber_loss(r, torch.zeros(200, 2), delta=0.5), rtol=1e-4, atol=1e-5)
    columns = [functional.huber_loss(output[:, c], y[:, c], delta=0.5 * float(deviation[c])) for c in range(2)]
    reported = module.task_losses.reported({"": output}, {"": y})[""]
    torch.testing.assert_close(reported, torch.stack(columns).mean(), rtol=1e-4, atol=1e-5)


def test_refuses():
    with pytest.raises(RecipeError, match="loss=huber is for numbers"):
        Huber().for_task(Task("", "classification", 3))
    with pytest.raises(RecipeError, match="delta must be a number > 0"):
        Huber(0.0)
