"""Techniques that put layers beside those of a model, or look at them, find the places of the plain model, whoever came before."""

import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting, Stage, Task
from plugins.sites import own_modules
from recipes.engine.module import RecipeModule
from recipes.models.cnn import CNN
from recipes.models.resnet18 import ResNet18
from tests.harness import build_plugins, config_of, options, plugin_class


class Swish(nn.Module):
    """An activation of somebody's own, which calls a function."""

    def forward(self, x):
        return x * torch.sigmoid(x)


class Distances(nn.Module):
    """A layer of somebody's own, which is no product."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        return (
            (x.flatten(2).transpose(1, 2)[..., None, :] - self.centres).abs().sum(-1).transpose(1, 2).unflatten(2, x.shape[2:])
        )


class Own(nn.Module):
    """With activations and layers of somebody's own, functions that a module returns, dropout, and an addition that is no module."""

    def __init__(self):
        super().__init__()
        self.stem, self.swish = nn.Conv2d(1, 6, 3, padding=1), Swish()
        self.branch = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), Function(), nn.Conv2d(6, 6, 3, padding=1), nn.Dropout2d(0.1))
        self.distances, self.act = Distances(), Swish()
        self.hidden, self.relu, self.drop = nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.2)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        x = self.swish(self.stem(x))
        x = x + self.branch(x)
        x = self.act(self.distances(x)).mean((2, 3))
        return self.head(self.drop(self.relu(self.hidden(x))))


class Function(nn.Module):
    def forward(self, x):
        return nn.functional.relu(x)


MODELS = {"cnn": lambda: CNN((1, 8, 8), 10, (4, 8), 16), "resnet18": lambda: ResNet18((1, 8, 8), 10), "own": Own}
LAYERS = [name for name in options() if (found := plugin_class(name)) is not None and found.stage == Stage.LAYERS]
SETTING = Setting((1, 8, 8), (Task("", "classification", 10),))


def technique(name):
    plugin = next(iter(plugin for plugin in build_plugins(config_of([name])) if plugin.state_key == name))
    plugin.prepare(SETTING)
    return plugin


def places(model, plugin):
    """Where a technique acts: the names of its layers, and of the modules that it looks at."""
    names = {module: name for name, module in own_modules(model)}
    layers = [name for name, module in model.named_modules() if type(module).__module__ == type(plugin).__module__]
    return layers, [names[module] for module in plugin.recorded]


def alone(make, name):
    """Where a technique acts in the plain model; None where it refuses it."""
    plugin = technique(name)
    try:
        return places(plugin.transform_model(make()), plugin)
    except RecipeError:
        return None


def test_there_are_some():
    found = {"activation_l1", "dropblock", "dropout", "input_dropout", "spatial_dropout", "stochastic_depth"}
    assert {f"regularizer/{name}" for name in found} <= set(LAYERS)


@pytest.mark.parametrize("model", MODELS)
def test_each_finds_the_places_of_the_plain_model_behind_any_other(model):
    expected = {name: alone(MODELS[model], name) for name in LAYERS}
    able = [name for name in LAYERS if expected[name] is not None]
    assert len(able) >= (3 if model == "cnn" else 4)
    orders = [able, able[::-1]]  # each before, and behind, any other
    for order in orders:
        built = MODELS[model]()
        plugins = [technique(name) for name in order]
        for plugin in plugins:
            built = plugin.transform_model(built)
        assert {plugin.state_key: places(built, plugin) for plugin in plugins} == {name: expected[name] for name in order}, (
            order
        )


def test_where_they_act_in_a_model_of_somebodys_own():
    assert alone(Own, "regularizer/dropout") == (["swish.dropout", "branch.1.dropout", "act.dropout", "drop"], [])
    assert alone(Own, "regularizer/dropblock") == (["swish.dropblock", "branch.1.dropblock"], [])  # act follows no convolution
    assert alone(Own, "regularizer/spatial_dropout") == (["swish.spatial_dropout", "branch.1.spatial_dropout"], [])
    assert alone(Own, "regularizer/input_dropout") == (["input_dropout"], [])
    assert alone(Own, "regularizer/stochastic_depth") == (["branch.2.stochastic_depth"], [])
    assert alone(Own, "regularizer/activation_l1") == ([], ["swish", "branch.1", "act", "relu"])


@pytest.mark.parametrize("model", MODELS)
def test_all_at_once_change_what_a_model_returns_in_training_only(model):
    built, x = MODELS[model](), torch.randn(4, 1, 8, 8)
    expected = built.eval()(x)
    module = RecipeModule(built.train(), nn.functional.cross_entropy, torch.optim.SGD)
    module.build([technique(name) for name in LAYERS if alone(MODELS[model], name) is not None], SETTING, devices=1)
    torch.testing.assert_close(module.model.eval()(x), expected)
    module.model.train()
    drawn = [module.model(x) for _ in range(10)]  # so many techniques may leave nothing of it, once and once more
    assert not all(torch.equal(drawn[0], other) for other in drawn[1:])
