import pytest
import torch

from plugins.base import OptimizerWrapper


class Twice(OptimizerWrapper):
    """A wrapper that asks for the gradient twice."""

    def step(self, closure=None):
        loss = closure()
        closure()
        self.optimizer.step()
        return loss


@pytest.fixture(params=["plain", "wrapped"])
def make_optimizer(request):
    """An optimizer of two parameters, each in a group with a rate of its own; by itself or in a wrapper."""

    def make(kind=torch.optim.SGD, rates=(0.3, 0.1), **values):
        groups = [{"params": [torch.nn.Parameter(torch.randn(3))], "lr": rate} for rate in rates]
        optimizer = kind(groups, **values)
        return Twice(optimizer) if request.param == "wrapped" else optimizer

    return make


@pytest.fixture
def rates():
    """The rates of the first group in each step; and whatever `key` names beside it."""

    def follow(optimizer, scheduler, steps, group=0, key="lr"):
        def closure():
            optimizer.zero_grad()
            loss = sum((p**2).sum() for g in optimizer.param_groups for p in g["params"])
            loss.backward()
            return loss

        history = []
        for _ in range(steps):
            history.append(optimizer.param_groups[group][key])
            optimizer.step(closure)
            scheduler.step()
        return history

    return follow
