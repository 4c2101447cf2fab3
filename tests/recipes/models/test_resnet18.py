import pytest
import torch
import torchvision

from plugins.base import RecipeError
from recipes.models.resnet18 import ResNet18


def test_is_torchvisions_with_a_small_stem():
    model = ResNet18((1, 8, 8), 7)
    theirs = torchvision.models.resnet18(num_classes=7)
    ours, shapes = model.state_dict(), {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name for name, value in ours.items() if value.shape != shapes[name]} == {"conv1.weight"}
    assert ours["conv1.weight"].shape == (64, 1, 3, 3) and ours.keys() == shapes.keys()
    seen = []
    model.layer1.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].shape))
    assert model.eval()(torch.rand(2, 1, 8, 8)).shape == (2, 7)
    assert seen == [(2, 64, 8, 8)]  # neither stride nor pooling before the first block


def test_takes_images_alone():
    with pytest.raises(RecipeError, match="data for model=resnet18 must be images"):
        ResNet18((12,), 2)
