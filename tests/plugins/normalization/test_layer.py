import torch
from torch import nn

from plugins.normalization.layer import LayerNormalization
from tests.plugins.normalization.placing import (
    Tokens,
    convolutional,
    expect_reloads,
    hosts,
    normalized,
    norms,
    perceptron,
)


def unit(x, axes):
    return (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()


def test_over_features_and_positions_of_each_sample():
    model, x = convolutional(), 2 + torch.randn(4, 3, 6, 6)
    conv, second, linear, head = model[0], model[2], model[6], model[8]
    normalized(LayerNormalization(), model, (3, 6, 6))
    h = unit(nn.functional.conv2d(x, conv.weight, conv.bias, padding=1), (1, 2, 3)).relu()
    h = unit(nn.functional.conv2d(h, second.weight), (1, 2, 3)).relu().flatten(1)
    h = unit(nn.functional.linear(h, linear.weight, linear.bias), 1).relu()
    torch.testing.assert_close(model(x), nn.functional.linear(h, head.weight, head.bias), rtol=1e-4, atol=1e-4)
    assert hosts(model) == ["0", "6"] and all(
        norm.weight.numel() == size for norm, size in zip(norms(model).values(), (8, 6, 12), strict=True)
    )


def test_over_the_features_of_each_position_where_they_come_last():
    model, x = Tokens(), torch.randn(3, 4, 6)
    own = model.norm
    normalized(LayerNormalization(), model, (4, 6))
    assert model.norm is own and hosts(model) == ["first"]
    h = nn.functional.linear(x, model.first.weight, model.first.bias)
    torch.testing.assert_close(model.first(x), nn.functional.layer_norm(h, (10,)))


def test_checkpoints_reload():
    expect_reloads(LayerNormalization(), convolutional, (3, 6, 6), torch.randn(8, 3, 6, 6))
    expect_reloads(LayerNormalization(), perceptron, (5,), torch.randn(8, 5))
