import pytest
import torch
from torch import nn

from plugins.base import Setting
from plugins.init.zeros import ZerosInit


def test_no_weight_ever_gets_a_gradient_but_the_last_bias():
    """Lectures C and E: all 0 is a pitfall."""
    model, plugin = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)), ZerosInit()
    plugin.prepare(Setting((5,), ()))
    with pytest.warns(UserWarning, match="init/zeros: the units of a layer start alike, .* and stay identical"):
        plugin.transform_model(model)
    assert not any(parameter.any() for parameter in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(8, 5)), torch.randint(3, (8,))).backward()
        optimizer.step()
    assert [name for name, parameter in model.named_parameters() if parameter.any()] == ["4.bias"]


def test_a_run_that_goes_on_is_not_warned(recwarn):
    plugin = ZerosInit()
    plugin.prepare(Setting((5,), (), restored=True))
    plugin.transform_model(nn.Linear(5, 4))
    assert not recwarn.list
