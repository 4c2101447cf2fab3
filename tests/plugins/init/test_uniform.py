import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting, derive_seed
from plugins.init.uniform import UniformInit


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.5, 3.0)])
def test_moments_and_torchs_own_draws(low, high):
    layer, plugin = nn.Conv2d(30, 40, 5), UniformInit(low, high)
    plugin.prepare(Setting((30, 9, 9), (), 3))
    weight = plugin.transform_model(layer).weight.detach()
    assert low <= weight.min() < low + 0.01 and high - 0.01 < weight.max() < high
    assert weight.mean().item() == pytest.approx((low + high) / 2, abs=0.02)
    assert weight.var().item() == pytest.approx((high - low) ** 2 / 12, rel=0.03)
    expected = torch.empty(40, 30, 5, 5).uniform_(
        low, high, generator=torch.Generator().manual_seed(derive_seed(3, "init", ""))
    )
    assert torch.equal(weight, expected) and not layer.bias.any()


def test_refuses():
    with pytest.raises(RecipeError, match=r"^init.low and init.high must be two numbers, low < high, got \(1.0, 1.0\)"):
        UniformInit(1.0, 1.0)
