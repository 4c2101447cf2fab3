"""Techniques that change a model work on models that know nothing of them: places are found, each once, and checkpoints are read again."""

import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting, Task
from plugins.regularizer.activation_l1 import ActivationL1
from plugins.regularizer.dropblock import DropBlock
from plugins.regularizer.dropout import Dropout
from plugins.regularizer.input_dropout import InputDropout
from plugins.regularizer.patch_dropout import PatchDropout
from plugins.regularizer.spatial_dropout import SpatialDropout
from plugins.regularizer.spectral_norm import SpectralNorm
from plugins.regularizer.stochastic_depth import StochasticDepth
from recipes.models.cnn import CNN
from recipes.models.mlp import MLP
from recipes.models.resnet18 import ResNet18
from recipes.models.torchvision import TorchvisionModel
from recipes.models.wide_resnet import WideResNet

SHAPE = (3, 32, 32)
SETTING = Setting(SHAPE, (Task("", "classification", 3),))
TECHNIQUES = {
    "dropout": Dropout,
    "dropblock": DropBlock,
    "spatial_dropout": SpatialDropout,
    "input_dropout": InputDropout,
    "stochastic_depth": StochasticDepth,
    "patch_dropout": PatchDropout,
    "activation_l1": ActivationL1,
    "spectral_norm": SpectralNorm,
}
slow = pytest.mark.slow
# the number of places of each of these, in their order; None: refused, as there are none
MODELS = [
    pytest.param(lambda: MLP(SHAPE, 3, [8, 8]), (2, None, None, 1, None, None, 2, 3), id="mlp"),
    pytest.param(lambda: CNN(SHAPE, 3, (4, 8), 16), (3, 2, 2, 1, None, None, 3, 4), id="cnn"),
    pytest.param(lambda: ResNet18(SHAPE, 3), (9, 9, 9, 1, 8, None, 9, 21), id="resnet18", marks=slow),
    pytest.param(lambda: WideResNet(SHAPE, 3, 10, 1), (7, 7, 7, 1, 3, None, 7, 10), id="wide_resnet"),
    *(
        pytest.param(lambda name=name: TorchvisionModel(SHAPE, 3, name), places, id=f"torchvision {name}", marks=slow)
        for name, places in {
            "resnet50": (17, 15, 15, 1, 16, None, 17, 54),
            "mobilenet_v3_small": (42, 17, 17, 1, 6, None, 42, 54),
            "convnext_tiny": (18, None, None, 1, 18, None, 18, 59),
            "vit_b_16": (12, None, None, 1, 24, 1, 12, 50),
        }.items()
    ),
    *(
        pytest.param(
            lambda name=name, size=size: pytest.importorskip("timm").create_model(name, num_classes=3, **size),
            places,
            id=f"timm {name}",
            marks=slow,
        )
        for name, size, places in (
            ("resnet18", {}, (17, 13, 13, 1, 8, None, 17, 21)),
            ("convnext_atto", {}, (12, 10, 10, 1, 12, None, 12, 41)),
            ("vit_tiny_patch16_224", {"img_size": 32}, (12, None, None, 1, 24, 1, 12, 50)),
        )
    ),
]


def changed(make, technique):
    """The model with a technique, and how many layers it has put in, or looks at."""
    model = make()
    before = {id(part) for part in model.modules()}
    plugin = technique()
    plugin.prepare(SETTING)
    model = plugin.transform_model(model)
    added = [part for part in model.modules() if id(part) not in before and type(part).__module__ == technique.__module__]
    return model, len(added) or len(plugin.recorded)


@pytest.mark.parametrize(("make", "places"), MODELS)
def test_places_are_found_once_and_weights_are_read_again(make, places):
    x = torch.randn(2, *SHAPE)
    for technique, number in zip(TECHNIQUES.values(), places, strict=True):
        if number is None:
            with pytest.raises(RecipeError, match=r"regularizer/\w+"):
                changed(make, technique)
            continue
        model, found = changed(make, technique)
        assert found == number, technique
        again, _ = changed(make, technique)
        again.load_state_dict(model.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(again.eval()(x), model.eval()(x))


class Functional(nn.Module):
    """Activations by functions, of which a module returns one."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(3, 4, 3), Inner(), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.inner(torch.tanh(self.stem(x))).mean((2, 3))))


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return nn.functional.gelu(self.conv(x))


def test_activations_by_functions_are_told_where_nothing_can_be_put_behind_them():
    for name, told in {
        "dropout": "tanh in Functional",
        "activation_l1": "sites",
        "spatial_dropout": "tanh in Functional",
    }.items():
        with pytest.raises(RecipeError, match=f"regularizer/{name}: Functional calls activations by functions.*{told}"):
            changed(Functional, TECHNIQUES[name])
    plugin = Dropout(sites=["inner"])  # which returns what a function gives
    plugin.prepare(SETTING)
    assert plugin.transform_model(Functional()).inner.dropout.p == 0.5
