import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting
from plugins.init.constant import ConstantInit


def test_units_are_clones_and_stay_so():
    """Lecture C: constants make 'cloned' neurons."""
    model, plugin = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), ConstantInit(0.3)
    plugin.prepare(Setting((5,), (), training_inputs=lambda: [torch.randn(8, 5)]))
    with pytest.warns(UserWarning, match="init/constant: .* stay identical"):
        plugin.transform_model(model)
    assert all(torch.equal(value, torch.full_like(value, 0.3 * (value.ndim > 1))) for value in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(8, 5)), torch.randint(3, (8,))).backward()
        optimizer.step()
    weight = model[0].weight.detach()
    torch.testing.assert_close(weight, weight[:1].expand(4, 5))
    assert (weight - 0.3).abs().max() > 1e-5  # it has learned, four times the same


def test_refuses():
    with pytest.raises(RecipeError, match="^value must be a number, got inf"):
        ConstantInit(float("inf"))
