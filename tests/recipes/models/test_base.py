import pytest
import torch
from torch.nn import functional

from plugins.base import RecipeError
from recipes.models.base import ACTIVATIONS, activation_class, expect_image, expect_sizes


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_are_the_functions_of_that_name(name):
    x = torch.randn(50)
    function = getattr(functional, name, None) or getattr(torch, name)
    assert torch.equal(activation_class(name)()(x), function(x))


def test_an_unknown_activation_names_the_known():
    with pytest.raises(RecipeError, match="model.activation must be one of relu, tanh, .*, got 'rely'"):
        activation_class("rely")


@pytest.mark.parametrize("sizes", [[0], [3, -1], [2.5], [True], ["a"]])
def test_sizes_must_be_whole_numbers(sizes):
    with pytest.raises(RecipeError, match="model.hidden must be a list of whole numbers ≥ 1"):
        expect_sizes("model.hidden", sizes)


@pytest.mark.parametrize("shape", [(5,), (8, 8), (1, 2, 3, 4)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(RecipeError, match="data for model=cnn must be images .*model=mlp takes any shape"):
        expect_image("cnn", shape)
