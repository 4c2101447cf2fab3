import pytest
import timm
import torch
from torch import nn

from plugins.base import RecipeError
from plugins.pretrained import Pretrained
from recipes.models.weights import first_convolution, fit, for_channels, with_inputs, with_size


def network(channels=3, outputs=4):
    return nn.Sequential(
        nn.Conv2d(channels, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, outputs)
    )


def test_what_fits_is_taken_and_the_rest_told():
    torch.manual_seed(0)
    model, other = network(outputs=4), network(outputs=7)
    head, state = model[4].weight.clone(), other.state_dict()
    (first, shapes, missing, left) = fit(
        model, {**{name: value for name, value in state.items() if name != "1.bias"}, "aux.weight": torch.ones(2)}, "F", "M"
    )
    assert first == "weights F: 5 of 8 tensors of M are taken"
    assert shapes == (
        "of another shape, so drawn at random: 4.weight (7, 5) where the model has (4, 5), 4.bias (7) where the model has (4)"
    )
    assert missing == "not among the weights, so drawn at random: 1.bias"
    assert left == "weights without a place in the model: aux.weight"
    assert torch.equal(model[0].weight, other[0].weight) and torch.equal(model[4].weight, head)


def test_an_output_layer_that_fits_is_taken():
    model, other = network(), network()
    assert fit(model, other.state_dict(), "F", "M") == ("weights F: 8 of 8 tensors of M are taken",)
    assert torch.equal(model[4].weight, other[4].weight)


def test_nothing_that_fits_is_refused():
    with pytest.raises(RecipeError, match=r"model.weights=F has nothing that fits M: it has a \(2\); the model has 0.weight"):
        fit(network(), {"a": torch.ones(2)}, "F", "M")


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_channels_as_timm_takes_them(channels):
    weight = torch.randn(5, 3, 2, 2)
    expected = timm.models.adapt_input_conv(channels, weight)
    torch.testing.assert_close(for_channels(weight, channels), expected)


def test_a_grey_image_gives_what_it_gives_in_colours():
    colour, grey = network(3).eval(), network(1).eval()
    assert "summed over them" in fit(grey, colour.state_dict(), "F", "M")[1]
    x = torch.rand(2, 1, 6, 6)
    torch.testing.assert_close(grey(x), colour(x.expand(2, 3, 6, 6)))


def test_the_first_convolution():
    assert first_convolution(network())[0] == "0"
    assert first_convolution(nn.Linear(2, 2)) is None
    assert first_convolution(nn.Conv2d(4, 4, 1, groups=2)) is None


@pytest.mark.parametrize(("shape", "mean"), [((3, 8, 8), [0.1, 0.2, 0.6]), ((1, 8, 8), [0.3]), ((2, 8, 8), [0.3, 0.3])])
def test_inputs_of_other_channels_are_their_mean(shape, mean):
    found = with_inputs(Pretrained(()), torch.tensor([0.1, 0.2, 0.6]), torch.ones(3), shape)
    torch.testing.assert_close(found.shift.flatten(), torch.tensor(mean))
    assert found.scale.shape == (shape[0], 1, 1)


def test_statistics_of_pixels_are_for_images_of_their_size():
    pixels = torch.rand(3, 8, 8)
    assert torch.equal(with_inputs(Pretrained(()), pixels, pixels, (3, 8, 8)).shift, pixels)
    assert with_inputs(Pretrained(()), pixels, pixels, (3, 9, 9)).shift is None


def test_another_size_is_told():
    assert with_size(Pretrained(()), (8, 8), (3, 8, 8)).remarks == ()
    (line,) = with_size(Pretrained(()), (224, 224), (3, 8, 9)).remarks
    assert line.startswith("the weights were trained on images of 224 × 224, the data has 8 × 9, and nothing resizes them")
