import pytest
import torch
from torch import nn

from plugins.base import Setting
from plugins.init.zeros import ZerosInit


def test_no_weight_ever_gets_a_gradient_but_the_last_bias():
    """Lectures C and E: all 0 is a pitfall."""
    model, plugin = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)), ZerosInit()
    plugin.prepare(Setting((5,), (), training_inputs=lambda: [torch.randn(8, 5)]))
    with pytest.warns(UserWarning, match="init/zeros: the hidden units of a layer start alike, .* and stay identical"):
        plugin.transform_model(model)
    assert not any(parameter.any() for parameter in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(8, 5)), torch.randint(3, (8,))).backward()
        optimizer.step()
    assert [name for name, parameter in model.named_parameters() if parameter.any()] == ["4.bias"]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("trains", [False, True])
def test_warns_only_where_hidden_units_are_trained_from_it(recwarn, trains, restored, layers):
    """Not where a run goes on, where one is evaluated or exported, nor of softmax regression."""
    plugin = ZerosInit()
    plugin.prepare(Setting((5,), (), restored=restored, training_inputs=(lambda: [torch.randn(8, 5)]) if trains else None))
    plugin.transform_model(nn.Sequential(*(nn.Linear(5, 5) for _ in range(layers))))
    assert len(recwarn.list) == (trains and not restored and layers == 2)
