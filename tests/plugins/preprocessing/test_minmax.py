import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler
from torch import nn

from plugins.base import RecipeError, Setting
from plugins.inputs import Entry
from plugins.preprocessing.minmax import MinMaxInputs
from tests.plugins.preprocessing.fitting import fitted


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (2.0, 5.0)])
@pytest.mark.parametrize("shape", [(6,), (2, 4, 3), (3, 5)])
def test_equals_scikit_learn(low, high, shape):
    x, other = torch.randn(20, *shape) * (torch.rand(shape) * 10 + 0.1), 3 * torch.randn(4, *shape)
    x[:, 0] = 0.1  # constant in training
    scaler = MinMaxScaler((low, high)).fit(x.flatten(1).double().numpy())
    for values in (x, other):
        found = fitted(MinMaxInputs(low, high), x)(values)
        np.testing.assert_allclose(found.flatten(1), scaler.transform(values.flatten(1).double().numpy()), rtol=1e-4, atol=1e-4)


def test_the_ends_of_lecture_b_and_nothing_is_cut_off():
    x = torch.rand(30, 4) * torch.tensor([1.0, 10.0, 1e3, 1e4])
    layer = fitted(MinMaxInputs(), x)
    out = layer(x)
    torch.testing.assert_close(torch.stack([out.amin(0), out.amax(0)]), torch.tensor([[-1.0] * 4, [1.0] * 4]))
    assert layer(2 * x).max() > 1.5


def test_a_mask_leaves_out_and_whole_numbers_stay():
    shape = {"steps": Entry((6, 3), "float32"), "mask": Entry((6,), "bool"), "tokens": Entry((4,), "int64", 9, 0)}
    mask = torch.arange(6) < torch.randint(1, 7, (30, 1))
    x = {"steps": torch.randn(30, 6, 3), "mask": mask, "tokens": torch.randint(10, (30, 4))}
    x["steps"][~mask] = 1e6
    plugin = MinMaxInputs()
    plugin.prepare(Setting(shape, (), training_inputs=lambda: iter([x])))
    out = plugin.transform_model(nn.Identity())(x)
    kept = out["steps"][mask]
    torch.testing.assert_close(torch.stack([kept.amin(0), kept.amax(0)]), torch.tensor([[-1.0] * 3, [1.0] * 3]))
    assert not out["steps"][~mask].any() and out["tokens"] is x["tokens"]


def test_buffers_of_a_loaded_run_come_from_its_checkpoint():
    x, plugin = torch.rand(20, 3, 4, 4), MinMaxInputs()
    trained = fitted(MinMaxInputs(), x)
    plugin.prepare(Setting((3, 4, 4), ()))
    loaded = plugin.transform_model(nn.Identity())
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(x), trained(x)) and not torch.equal(loaded(x), x)


def test_refuses():
    with pytest.raises(RecipeError, match="preprocessing.low and preprocessing.high must be two numbers, low < high"):
        MinMaxInputs(1.0, -1.0)
    with pytest.raises(RecipeError, match="finite"):
        fitted(MinMaxInputs(), torch.full((20, 2), torch.inf))
