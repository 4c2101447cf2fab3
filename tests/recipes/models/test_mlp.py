import pytest
import torch

from plugins.base import RecipeError
from recipes.models.mlp import MLP


def test_layers_with_an_activation_between():
    model, x = MLP((2, 3), 4, hidden=[5, 6], activation="tanh"), torch.randn(7, 2, 3)
    first, second, last = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in (first, second, last)] == [5, 6, 4]
    hidden = torch.tanh(second(torch.tanh(first(x.flatten(1)))))
    torch.testing.assert_close(model(x), last(hidden))


def test_without_hidden_layers_it_is_linear():
    model = MLP((4,), 3, hidden=[])
    assert model(torch.randn(2, 4)).shape == (2, 3) and len(list(model.parameters())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"hidden": [8, 0]}, "model.hidden must be"), ({"activation": "sgmoid"}, "model.activation must be one of")],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        MLP((4,), 3, **arguments)
