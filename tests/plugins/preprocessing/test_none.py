from torch import nn

from plugins.base import Setting, Stage
from plugins.preprocessing.none import NoPreprocessing


def test_leaves_the_model_as_it_is():
    model, plugin = nn.Linear(3, 2), NoPreprocessing()
    plugin.prepare(Setting((3,), (), training_inputs=None))
    assert plugin.transform_model(model) is model
    assert plugin.stage is Stage.PREPROCESSING
