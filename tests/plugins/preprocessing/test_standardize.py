import lightning as L
import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import RecipeError, Setting
from plugins.loss.by_task import LossByTask
from plugins.preprocessing.standardize import StandardizeInputs, inverse_std
from recipes.engine.module import RecipeModule
from tests.plugins.preprocessing.fitting import SHAPES, fitted


@pytest.mark.parametrize(("per", "shape", "axes"), SHAPES)
def test_equals_numpy(per, shape, axes):
    scale = torch.rand(shape) * 10 + 0.1
    x, other = 3 + torch.randn(20, *shape) * scale, torch.randn(4, *shape)
    exact = x.numpy().astype(np.float64)
    expected = (other.numpy() - exact.mean(axes, keepdims=True)) / exact.std(axes, keepdims=True)
    np.testing.assert_allclose(fitted(StandardizeInputs(per), x)(other).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_equals_scikit_learn():
    x = torch.randn(40, 5) * torch.tensor([1e-3, 1.0, 10.0, 1e3, 1e4])
    np.testing.assert_allclose(
        fitted(StandardizeInputs(), x)(x).numpy(), StandardScaler().fit_transform(x.numpy()), rtol=1e-4, atol=1e-5
    )


def test_a_small_spread_around_a_large_mean():
    x = 1e4 + torch.randn(10_000, 1)
    torch.testing.assert_close(
        fitted(StandardizeInputs(), x).scale[0].item(), 1 / x.double().std(correction=0).item(), rtol=1e-6, atol=0
    )


def test_a_constant_feature_becomes_zero_wherever_it_is_not_constant():
    x = torch.cat([torch.randn(50, 2), torch.full((50, 1), 0.1), torch.full((50, 1), 1e9)], 1)
    layer = fitted(StandardizeInputs(), x)
    assert torch.equal(layer(torch.randn(7, 4))[:, 2:], torch.zeros(7, 2))
    assert torch.isfinite(layer(x)).all()


def test_eps_is_the_spread_that_counts_as_none():
    assert inverse_std(torch.tensor([0.0, 1e-4, 4.0]), 0.01).tolist() == [0.0, 0.0, 0.5]
    assert inverse_std(torch.tensor([0.0, 1e-30]), 0.0).isfinite().all()


def test_only_training_inputs_are_seen_and_the_model_learns_on_standardized_ones():
    train, held_out = 5 + 3 * torch.randn(64, 4), 100 + torch.randn(16, 4)
    loaders = [DataLoader(TensorDataset(x, torch.randint(3, (len(x),))), 16) for x in (train, held_out)]
    module = RecipeModule(nn.Linear(4, 3), LossByTask(), lambda groups: torch.optim.SGD(groups, 0.1))
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", callbacks=[StandardizeInputs()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, *loaders)
    out = module.model.transform(train)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(4), rtol=0, atol=1e-5)
    assert {"model.shift", "model.scale"} < set(module.state_dict())


def test_gradients_reach_the_raw_inputs():
    x = torch.randn(20, 3) * 4
    layer, raw = fitted(StandardizeInputs(), x), torch.randn(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(raw).sum(), raw)
    torch.testing.assert_close(gradient, (1 / x.std(0, correction=0)).expand(2, 3))


def test_buffers_of_a_loaded_run_come_from_its_checkpoint():
    x, plugin = torch.rand(20, 3, 4, 4), StandardizeInputs()
    trained = fitted(StandardizeInputs(), x)
    plugin.prepare(Setting((3, 4, 4), ()))
    loaded = plugin.transform_model(nn.Identity())
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(x), trained(x)) and not torch.equal(loaded(x), x)


def test_refuses():
    with pytest.raises(RecipeError, match="finite"):
        fitted(StandardizeInputs(), torch.full((20, 2), float("nan")))
    plugin = StandardizeInputs()
    plugin.prepare(Setting((2,), (), training_inputs=lambda: iter([])))
    with pytest.raises(RecipeError, match="got none"):
        plugin.transform_model(nn.Identity())
