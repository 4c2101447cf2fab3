import pytest
import torch
from torch import nn
from torchvision import models

from plugins.base import RecipeError
from recipes.models.torchvision import TorchvisionModel
from recipes.run.build import build_model


@pytest.mark.parametrize("name", ["resnet34", "mobilenet_v3_small", "squeezenet1_0", "googlenet"])
def test_any_classifier_by_its_name(name):
    model = TorchvisionModel((3, 64, 64), 4, name=name)
    assert type(model) is type(models.get_model(name))
    x = torch.rand(2, 3, 64, 64)
    assert model.eval()(x).shape == (2, 4)
    assert model.train()(x).shape == (2, 4)  # no further outputs in training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5"}, "did you mean resnet50?"),
        ({"name": None}, "model.name must be a classification model of torchvision.*got None"),
        ({"name": "fcn_resnet50"}, "model.name must be a classification model"),
        ({"shape": (1, 32, 32)}, "takes images with 3 channels, the data has 1: use model=resnet18 or cnn"),
        ({"shape": (9,)}, "data for model=torchvision must be images"),
        ({"weights": "IMAGENET"}, "model.weights of resnet18 must be one of IMAGENET1K_V1, DEFAULT, got 'IMAGENET'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        TorchvisionModel(**{"shape": (3, 32, 32), "outputs": 2, "name": "resnet18", **arguments})


def test_pretrained_weights_are_those_of_all_but_the_output_layer(monkeypatch):
    pretrained = models.resnet18().state_dict()
    for value in pretrained.values():
        value.copy_(torch.randn_like(value.float()))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pretrained)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: pretrained)
    model = TorchvisionModel((3, 32, 32), 4, name="resnet18", weights="DEFAULT")
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in pretrained.items() if not name.startswith("fc."))
    assert isinstance(model.fc, nn.Linear) and model.fc.out_features == 4


def test_a_download_that_fails_is_one_line(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(RecipeError, match="model.weights=IMAGENET1K_V1 could not be downloaded: no route to host"):
        TorchvisionModel((3, 32, 32), 4, name="resnet18", weights="IMAGENET1K_V1")


def test_images_that_are_too_small_are_refused_before_training():
    config = {"model": {"_target_": "recipes.models.torchvision.TorchvisionModel", "name": "alexnet"}}
    with pytest.raises(
        RecipeError, match=r"samples of shape \(3, 16, 16\) do not pass through it, they may be too small"
    ) as error:
        build_model(config, (3, 16, 16), 2, 0)
    assert "\n" not in str(error.value)
