import pytest
import torch
from torch.nn import functional

from plugins.base import RecipeError
from recipes.models.fcn import FCN


def test_convolutions_written_out():
    model, x = FCN((3, 5, 7), 4, channels=[6, 2], activation="gelu"), torch.randn(2, 3, 5, 7)
    *hidden, last = [layer for layer in model if isinstance(layer, torch.nn.Conv2d)]
    h = x
    for layer in hidden:
        h = functional.gelu(functional.conv2d(h, layer.weight, layer.bias, padding=1))
    expected = torch.einsum("oc,nchw->nohw", last.weight[:, :, 0, 0], h) + last.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(model(x), expected)
    assert model(torch.randn(1, 3, 9, 2)).shape == (1, 4, 9, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (5,)}, "data for model=fcn must be images"),
        ({"channels": [0]}, "model.channels must be"),
        ({"channels": []}, "model.channels must be at least one"),
        ({"activation": "no"}, "model.activation must be"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        FCN(**{"shape": (1, 8, 8), "outputs": 2, **arguments})
