import pytest
import torch
from torch.nn import functional

from plugins.base import RecipeError
from recipes.models.cnn import CNN


def test_blocks_written_out():
    model, x = CNN((3, 9, 8), 5, channels=[4, 6], hidden=7, activation="gelu"), torch.randn(2, 3, 9, 8)
    convolutions = [layer for layer in model if isinstance(layer, torch.nn.Conv2d)]
    hidden, output = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    h = x
    for convolution in convolutions:
        h = functional.conv2d(h, convolution.weight, convolution.bias, padding=1)
        h = functional.max_pool2d(functional.gelu(h), 2)
    assert h.shape == (2, 6, 2, 2)
    torch.testing.assert_close(model(x), output(functional.gelu(hidden(h.flatten(1)))))


@pytest.mark.parametrize(("size", "channels"), [(1, [4]), (3, [4, 4]), (8, [2] * 4), (7, [2] * 3)])
def test_images_that_are_too_small_are_refused_with_the_way_out(size, channels):
    with pytest.raises(
        RecipeError, match=rf"images of {size} × {size} are too small for model=cnn with {len(channels)} blocks"
    ):
        CNN((1, size, size), 2, channels=channels)
    assert CNN((1, 2 ** len(channels), 2 ** len(channels)), 2, channels=channels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (5,)}, "data for model=cnn must be images"),
        ({"channels": [0]}, "model.channels must be"),
        ({"hidden": 0}, "model.hidden must be"),
        ({"activation": "no"}, "model.activation must be"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        CNN(**{"shape": (1, 8, 8), "outputs": 2, **arguments})
