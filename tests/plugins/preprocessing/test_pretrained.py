import copy

import pytest
import torch
from torch import nn
from torchvision.transforms.functional import normalize

from plugins.base import RecipeError
from plugins.preprocessing.pretrained import PretrainedInputs, told
from plugins.preprocessing.standardize import StandardizeInputs
from plugins.pretrained import Pretrained
from tests.plugins.preprocessing.fitting import fitted

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def with_weights(*inputs):
    model = nn.Identity()
    model.pretrained_weights = Pretrained(("taken",), *inputs)
    return model


@pytest.fixture
def x():
    return torch.rand(20, 3, 4, 5)


def prepared(plugin, x, model):
    fitted(plugin, x)  # so that it knows the data
    return plugin.transform_model(model)


def test_given_numbers_are_those_of_torchvisions_normalize(x):
    layer = fitted(PretrainedInputs(MEAN, STD), x)
    torch.testing.assert_close(layer(x), normalize(x, MEAN, STD))
    torch.testing.assert_close(fitted(PretrainedInputs(0.5, 0.25), x)(x), (x - 0.5) / 0.25)


def test_those_of_the_weights_are_taken_and_told(x):
    mean, deviation = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    plugin = PretrainedInputs()
    layer = prepared(plugin, x, with_weights(mean, 1 / deviation))
    torch.testing.assert_close(layer(x), normalize(x, MEAN, STD))
    assert plugin.remarks == [
        "inputs as the weights expect them: less the mean [0.485, 0.456, 0.406], by the deviation [0.229, 0.224, 0.225]"
    ]


def test_what_is_typed_wins_over_the_weights(x):
    layer = prepared(PretrainedInputs(0.0, 1.0), x, with_weights(torch.ones(3, 1, 1), torch.ones(3, 1, 1)))
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("known", [True, False])
def test_where_none_are_known_those_of_the_training_split(x, known):
    plugin = PretrainedInputs()
    layer = prepared(plugin, x, with_weights() if known else nn.Identity())
    torch.testing.assert_close(layer(x), fitted(StandardizeInputs(), x)(x))
    assert len(plugin.remarks) == known and all("do not tell" in remark for remark in plugin.remarks)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 4, 5)], ids=["channel", "feature"])
def test_buffers_of_a_loaded_run_come_from_its_checkpoint(x, shape):
    trained = prepared(PretrainedInputs(), x, with_weights(torch.rand(shape), torch.rand(shape)))
    loaded = copy.deepcopy(fitted(PretrainedInputs(), 7 + x))
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(x), trained(x))


def test_buffers_of_images_of_another_size_do_not_fit(x):
    trained = prepared(PretrainedInputs(), x, with_weights(torch.rand(3, 4, 5), torch.rand(3, 4, 5)))
    with pytest.raises(RuntimeError, match="size mismatch for shift"):
        fitted(PretrainedInputs(), torch.rand(20, 3, 5, 5)).load_state_dict(trained.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 0.5}, "preprocessing.mean and preprocessing.std must be both given, or both null"),
        ({"mean": [0.1, 0.2], "std": 1.0}, "preprocessing.mean must be a number or a list of 3, one a channel, got 2 of them"),
        ({"mean": 0.0, "std": [1.0, 0.0]}, "std must be a number > 0 or a list of one a channel"),
    ],
)
def test_refuses(x, arguments, message):
    with pytest.raises(RecipeError, match=message):
        fitted(PretrainedInputs(**arguments), x)


def test_in_words():
    assert told(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)) == "raw"
    assert told(torch.zeros(3, 8, 8), torch.ones(3, 8, 8)) == "192 means and deviations"
