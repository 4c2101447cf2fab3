import lightning as L
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import RecipeError, Setting
from plugins.init.normal import NormalInit
from plugins.loss.by_task import LossByTask
from recipes.engine.module import RecipeModule


def drawn(model, std=0.01, seed=0):
    plugin = NormalInit(std)
    plugin.prepare(Setting((1,), (), seed))
    return plugin.transform_model(model)


@pytest.mark.parametrize("layer", [nn.Linear(300, 200), nn.Conv2d(40, 60, 3), nn.LSTM(100, 80), nn.GRUCell(90, 80)])
@pytest.mark.parametrize("std", [0.01, 0.5])
def test_moments(layer, std):
    for name, parameter in drawn(layer, std).named_parameters():
        if name.startswith("bias"):
            assert not parameter.any()
        else:
            assert parameter.std().item() == pytest.approx(std, rel=0.05)
            assert (parameter.abs() < std).double().mean().item() == pytest.approx(0.6827, abs=0.03)


def test_norm_layers_and_embeddings_are_left_alone():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LayerNorm(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = drawn(model).state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"1.weight", "1.bias"}


def test_the_global_random_numbers_are_not_touched():
    model, before = nn.Sequential(nn.Linear(5, 4), nn.LSTM(4, 3)), torch.get_rng_state()
    drawn(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_layer_leaves_the_draws_of_the_rest_alone():
    trunk = {"a": nn.Linear(5, 4), "b": nn.Linear(4, 3)}
    small = drawn(nn.ModuleDict(trunk)).a.weight.clone(), trunk["b"].weight.clone()
    large = drawn(nn.ModuleDict({"new": nn.Conv2d(3, 3, 3), **trunk}))
    assert torch.equal(large["a"].weight, small[0]) and torch.equal(large["b"].weight, small[1])
    assert not torch.equal(large["a"].weight[:3, :4], large["b"].weight)


def test_a_weight_that_is_computed_is_drawn_at_its_source():
    layer = nn.utils.parametrize.register_parametrization(nn.Linear(200, 100), "weight", nn.Tanh())
    assert drawn(layer, 0.5).parametrizations.weight.original.std().item() == pytest.approx(0.5, rel=0.05)
    with pytest.raises(RecipeError, match="init=framework"):
        drawn(parametrizations.weight_norm(nn.Linear(3, 2)))


def test_training_starts_from_the_drawn_weights():
    model = nn.Sequential(nn.Linear(4, 3))
    expected = drawn(nn.Sequential(nn.Linear(4, 3)), seed=7)[0].weight
    module = RecipeModule(model, LossByTask(), lambda groups: torch.optim.SGD(groups, 0.0), seed=7)
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", callbacks=[NormalInit()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(8, 4), torch.randint(3, (8,))), 8))
    assert torch.equal(module.model[0].weight, expected)
