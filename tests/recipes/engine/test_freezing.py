import torch
from torch import nn

from plugins.base import Setting, Task
from recipes.engine.module import RecipeModule


def test_parameters_are_trained_or_not_and_lose_their_gradient():
    module = RecipeModule(
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
        nn.functional.cross_entropy,
        lambda groups: torch.optim.SGD(groups, 0.1),
    )
    module.build([], Setting((3,), (Task("", "classification", 2),)), devices=1)
    module.model(torch.randn(5, 3)).sum().backward()
    module.train_parameters({"0.weight": False, "1.bias": True})
    parameters = dict(module.model.named_parameters())
    assert not parameters["0.weight"].requires_grad and parameters["0.weight"].grad is None
    assert all(
        parameters[name].requires_grad and parameters[name].grad is not None for name in ("0.bias", "1.weight", "1.bias")
    )
    module.train_parameters({"0.weight": True})
    assert all(parameter.requires_grad for parameter in module.model.parameters())
