import pytest
import torch
import torch.nn.functional as F

from plugins.base import RecipeError
from recipes.models.wide_resnet import Block, WideResNet


def number_of_parameters(depth, width, channels, outputs):
    """Weights of 3 × 3 and 1 × 1 convolutions, two numbers a channel for each norm, and the linear layer."""
    blocks, before, total = (depth - 4) // 6, 16, 9 * channels * 16
    for size in (16 * width, 32 * width, 64 * width):
        for number in range(blocks):
            taken = before if number == 0 else size
            total += 9 * taken * size + 9 * size * size + 2 * taken + 2 * size
        total += before * size if before != size else 0
        before = size
    return total + 2 * before + before * outputs + outputs


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 4), (16, 8), (22, 2), (28, 10), (40, 4)])
def test_number_of_parameters(depth, width):
    with torch.device("meta"):
        model = WideResNet((3, 32, 32), 10, depth, width)
    assert sum(parameter.numel() for parameter in model.parameters()) == number_of_parameters(depth, width, 3, 10)
    layers = [layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Conv2d) and "shortcut" not in name]
    assert len(layers) == depth - 3  # the three shortcuts count in the depth


@pytest.mark.parametrize(
    ("depth", "width", "millions"), [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (28, 10, 36.5), (16, 8, 11.0), (22, 8, 17.2)]
)
def test_as_many_as_published(depth, width, millions):  # Zagoruyko & Komodakis, table 4
    assert number_of_parameters(depth, width, 3, 10) / 1e6 == pytest.approx(millions, abs=0.06)


def test_written_out():
    model, x = WideResNet((2, 8, 8), 5, depth=10, width=2).eval(), torch.randn(3, 2, 8, 8)
    for value in model.buffers():
        if value.is_floating_point():
            torch.nn.init.uniform_(value, 0.5, 2)

    def norm(layer, h):
        return F.batch_norm(h, layer.running_mean, layer.running_var, layer.weight, layer.bias).relu()

    h, shapes = F.conv2d(x, model.conv.weight, padding=1), []
    for number, (block,) in enumerate(model.stages):
        stride = 1 if number == 0 else 2
        first = norm(block.norm1, h)
        second = norm(block.norm2, F.conv2d(first, block.conv1.weight, stride=stride, padding=1))
        h = F.conv2d(first, block.shortcut.weight, stride=stride) + F.conv2d(second, block.conv2.weight, padding=1)
        shapes.append(tuple(h.shape[1:]))
    assert shapes == [(32, 8, 8), (64, 4, 4), (128, 2, 2)]
    expected = norm(model.norm, h).mean((2, 3)) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_a_block_that_keeps_its_shape_adds_to_what_it_is_given():
    block, x = Block(6, 6, 1, 0.0).eval(), torch.randn(2, 6, 5, 5)
    torch.nn.init.zeros_(block.conv2.weight)
    assert block.shortcut is None and torch.equal(block(x), x)


def test_dropout_between_the_convolutions():
    model = WideResNet((1, 8, 8), 3, depth=16, width=1, dropout=0.3)
    assert [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)] == [0.3] * 6
    assert not [layer for layer in WideResNet((1, 8, 8), 3, 10, 1).modules() if isinstance(layer, torch.nn.Dropout)]
    whole = Block(4, 4, 1, 1.0).train()
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(whole(x), x)  # all of the branch is dropped


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (5,)}, "data for model=wide_resnet must be images"),
        ({"depth": 18}, "model.depth must be 6n \\+ 4, such as 10, 16, .* got 18"),
        ({"depth": 4}, "model.depth must be a whole number ≥ 10"),
        ({"width": 0}, "model.width must be"),
        ({"dropout": 1.5}, "model.dropout must be"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        WideResNet(**{"shape": (1, 8, 8), "outputs": 2, **arguments})
