from torch import nn

from plugins.base import Setting, Stage
from plugins.normalization.model import ModelNormalization


def test_leaves_the_model_as_it_is():
    model, plugin = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)), ModelNormalization()
    plugin.prepare(Setting((3,), ()))
    layers = list(model)
    assert plugin.transform_model(model) is model and list(model) == layers
    assert plugin.stage is Stage.NORMALIZATION and not any(hasattr(layer, "norm") for layer in layers)
