import torch

from recipes.models.linear import LinearModel


def test_is_one_affine_map_of_the_flattened_input():
    model, x = LinearModel((2, 3, 4), 5), torch.randn(7, 2, 3, 4)
    weight, bias = model.parameters()
    assert weight.shape == (5, 24)
    torch.testing.assert_close(model(x), x.flatten(1) @ weight.T + bias)
    assert LinearModel((3,), 1)(torch.randn(2, 3)).shape == (2, 1)
