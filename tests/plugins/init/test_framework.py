import torch
from torch import nn

from plugins.base import Setting, Stage
from plugins.init.framework import FrameworkInit


def test_leaves_all_as_it_is():
    model, plugin = nn.Linear(50, 40), FrameworkInit()
    before = model.weight.clone(), model.bias.clone()
    plugin.prepare(Setting((50,), ()))
    assert plugin.transform_model(model) is model and plugin.stage is Stage.INIT
    assert torch.equal(model.weight, before[0]) and torch.equal(model.bias, before[1])
    assert 0.95 * 50**-0.5 < model.weight.abs().max() <= 50**-0.5  # U(±1/√n_in), as the docstring says
