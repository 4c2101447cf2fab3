import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from plugins.regularizer.dropout import Dropout, DropoutLayer, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_equals_torch(p):
    x = torch.randn(64, 100)
    torch.manual_seed(3)
    expected = nn.functional.dropout(x, p)
    torch.manual_seed(3)
    torch.testing.assert_close(dropout(x, p), expected)


def test_zero_is_the_same_tensor():
    x = torch.randn(4, 5)
    assert dropout(x, 0.0) is x


def test_vanilla_scales_at_test_only():
    layer, x = DropoutLayer(0.3, "vanilla"), torch.rand(1000, 50) + 1
    out = layer(x)
    assert torch.equal(out[out != 0], x[out != 0])
    torch.testing.assert_close(layer.eval()(x), 0.7 * x)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"p": 1.5}, "p must be a probability"), ({"mode": "x"}, "inverted, vanilla")]
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        Dropout(**arguments)


def test_no_place_is_an_error_that_says_what_was_looked_for():
    with pytest.raises(RecipeError, match="no activation in Linear.*ReLU"):
        Dropout().transform_model(nn.Linear(3, 2))


def test_sites_narrow_by_name():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    Dropout(sites=["3"]).transform_model(model)
    assert not hasattr(model[1], "dropout") and isinstance(model[3].dropout, DropoutLayer)
    with pytest.raises(RecipeError, match="the model has: 1, 3"):
        Dropout(sites=["9"]).transform_model(model)
