import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from plugins.regularizer.dropout import Dropout
from recipes.run.build import build_loss, build_model, build_optimizer, build_plugins

MLP = {"_target_": "recipes.models.mlp.MLP", "hidden": [4], "activation": "relu"}


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build_model({"model": MLP}, (3,), 2, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)  # and nobody else's draws on them
    torch.manual_seed(2)
    again, other = build_model({"model": MLP}, (3,), 2, seed=5), build_model({"model": MLP}, (3,), 2, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first[1].weight, other[1].weight)
    assert first.training


def test_a_model_of_another_width_is_refused():
    config = {"model": {"_target_": "torch.nn.Flatten"}}
    with pytest.raises(RecipeError, match="unexpected|missing|argument"):
        build_model(config, (3,), 2, 0)


def test_optimizers_are_made_from_parameter_groups():
    node = {"_target_": "torch.optim.AdamW", "lr": 0.5, "betas": [0.8, 0.9], "no_decay": ["bias"]}
    make, rules = build_optimizer({"optimizer": node})
    optimizer = make([{"params": [nn.Parameter(torch.ones(1))]}])
    assert type(optimizer) is torch.optim.AdamW and optimizer.defaults["lr"] == 0.5 and rules == {"no_decay": ["bias"]}
    assert node["no_decay"] == ["bias"]  # the config stays as it is


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "torch.optim.SGD", "lr": -1.0},
        {"_target_": "torch.optim.SGD", "lr": 0.1, "momentom": 0.9},
        {"_target_": "torch.optim.SGD", "lr": 0.1, "nesterov": True},
        {"_target_": "torch.nn.Linear", "lr": 0.1},
        {"_target_": "torch.optim.Sgd"},
    ],
)
def test_optimizers_that_cannot_be_made_are_one_line(node):
    with pytest.raises(RecipeError) as error:
        build_optimizer({"optimizer": node})
    assert "\n" not in str(error.value)


def test_plugins_are_told_with_their_place_on_the_command_line():
    node = {"_target_": "plugins.regularizer.dropout.Dropout", "p": 0.25}
    (plugin,) = build_plugins({"seed": 0, "regularizer": {"dropout": node}, "model": MLP, "tags": []})
    assert isinstance(plugin, Dropout) and plugin.p == 0.25
    with pytest.raises(RecipeError, match="^regularizer.dropout: p must be a probability"):
        build_plugins({"regularizer": {"dropout": {**node, "p": 2.0}}})
    with pytest.raises(RecipeError, match="^regularizer.dropout: expected a config with _target_"):
        build_plugins({"regularizer": {"dropout": {"p": 0.5}}})
    with pytest.raises(RecipeError, match="^adversarial: .*unexpected keyword argument 'epsilon'"):
        build_plugins({"adversarial": {"_target_": "plugins.adversarial.fgsm.FGSM", "epsilon": 0.1}})


def test_a_loss_of_torch_or_of_our_own():
    assert isinstance(build_loss({"loss": {"_target_": "torch.nn.HuberLoss", "delta": 2.0}}), nn.HuberLoss)
    assert callable(build_loss({"loss": {"_target_": "plugins.loss.by_task.LossByTask"}}))
    with pytest.raises(RecipeError, match="refused: expected a class of kind Module"):
        build_loss({"loss": {"_target_": "torch.optim.SGD", "params": [], "lr": 0.1}})
