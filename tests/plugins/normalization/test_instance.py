import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from plugins.normalization.instance import InstanceNormalization
from tests.plugins.normalization.placing import Tokens, convolutional, expect_reloads, hosts, normalized, norms, perceptron


def unit(x, axes):
    return (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()


def test_over_the_positions_of_each_feature():
    model, x = convolutional(), 2 + torch.randn(4, 3, 6, 6)
    conv, second = model[0], model[2]
    normalized(InstanceNormalization(), model, (3, 6, 6))
    assert hosts(model) == ["0"] and list(norms(model)) == ["0.norm", "3"]  # none behind a layer without positions
    h = unit(nn.functional.conv2d(x, conv.weight, conv.bias, padding=1), (2, 3))
    torch.testing.assert_close(conv(x), h, rtol=1e-4, atol=1e-5)
    expected = unit(nn.functional.conv2d(h.relu(), second.weight), (2, 3))
    torch.testing.assert_close(model[:4](x), expected, rtol=1e-4, atol=1e-5)
    nn.init.normal_(conv.norm.weight)
    nn.init.normal_(conv.norm.bias)
    torch.testing.assert_close(
        conv(x), h * conv.norm.weight.view(-1, 1, 1) + conv.norm.bias.view(-1, 1, 1), rtol=1e-4, atol=1e-5
    )
    first = model.eval()(x[:1])
    torch.testing.assert_close(first, model(x)[:1])  # whatever the batch


def test_of_tokens_over_their_places():
    model, x = normalized(InstanceNormalization(), Tokens(), (4, 6)), torch.randn(3, 4, 6)
    torch.testing.assert_close(model.norm(x), unit(x, 1), rtol=1e-4, atol=1e-5)
    h = nn.functional.linear(x, model.first.weight, model.first.bias)
    torch.testing.assert_close(model.first(x), unit(h, 1), rtol=1e-4, atol=1e-5)


def test_checkpoints_reload():
    expect_reloads(InstanceNormalization(), convolutional, (3, 6, 6), torch.randn(8, 3, 6, 6))


def test_refuses_a_model_without_positions():
    with pytest.raises(RecipeError, match="no place for such a norm layer in Sequential: .* single number"):
        normalized(InstanceNormalization(), perceptron(), (5,))
