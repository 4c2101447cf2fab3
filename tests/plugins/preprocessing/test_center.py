import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import Setting
from plugins.preprocessing.center import CenterInputs
from tests.plugins.preprocessing.fitting import SHAPES, fitted


@pytest.mark.parametrize(("per", "shape", "axes"), SHAPES)
def test_subtracts_the_training_mean_from_whatever_comes(per, shape, axes):
    x, other = 100 + torch.rand(20, *shape), torch.randn(4, *shape)
    expected = other.numpy() - x.numpy().astype(np.float64).mean(axes, keepdims=True)
    np.testing.assert_allclose(fitted(CenterInputs(per), x)(other).numpy(), expected, rtol=1e-5, atol=1e-4)


def test_a_constant_feature_becomes_exactly_zero():
    x = torch.cat([torch.randn(50, 2), torch.full((50, 1), 0.1), torch.full((50, 1), 1e9)], 1)
    out = fitted(CenterInputs(), x)(x)
    assert torch.equal(out[:, 2:], torch.zeros(50, 2))


def test_buffers_of_a_loaded_run_come_from_its_checkpoint():
    x = torch.rand(20, 3, 4, 4)
    trained, plugin = fitted(CenterInputs("feature"), x), CenterInputs("feature")
    plugin.prepare(Setting((3, 4, 4), ()))
    loaded = plugin.transform_model(nn.Identity())
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(x), trained(x)) and not torch.equal(loaded(x), x)
