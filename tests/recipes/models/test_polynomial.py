import math

import numpy as np
import pytest
import torch
from sklearn.preprocessing import PolynomialFeatures

from plugins.base import RecipeError
from recipes.models.polynomial import PolynomialModel


@pytest.mark.parametrize(("shape", "degree"), [((5,), 1), ((1,), 6), ((4,), 3), ((2, 3), 2), ((1, 2, 2), 4), ((64,), 3)])
def test_terms_are_those_of_sklearn(shape, degree):
    model, x = PolynomialModel(shape, 3, degree), torch.randn(6, *shape, dtype=torch.float64)
    expected = PolynomialFeatures(degree, include_bias=False).fit_transform(x.flatten(1).numpy())
    torch.testing.assert_close(model.terms(x), torch.from_numpy(expected))
    model.double()
    torch.testing.assert_close(model(x), torch.from_numpy(expected) @ model.head.weight.T + model.head.bias)


def test_fits_a_cubic_exactly():
    model, x = PolynomialModel((2,), 1).double(), torch.randn(40, 2, dtype=torch.float64)
    y = 2 - x[:, 0] + 3 * x[:, 0] * x[:, 1] ** 2 - 0.5 * x[:, 1] ** 3 + x[:, 0] ** 2
    terms = np.column_stack([np.ones(len(x)), model.terms(x).numpy()])
    found = torch.from_numpy(np.linalg.lstsq(terms, y.numpy(), rcond=None)[0])
    with torch.no_grad():
        model.head.bias.copy_(found[:1])
        model.head.weight.copy_(found[None, 1:])
    torch.testing.assert_close(model(x)[:, 0], y)
    # x₁, x₂, x₁², x₁x₂, x₂², x₁³, x₁²x₂, x₁x₂², x₂³
    torch.testing.assert_close(found, torch.tensor([2, -1, 0, 1, 0, 0, 0, 0, 3, -0.5], dtype=torch.float64))


def test_what_is_learned_is_all_that_is_kept():
    assert set(PolynomialModel((3,), 2).state_dict()) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degree": 0}, "model.degree must be a whole number ≥ 1"),
        ({"degree": 2.5}, "model.degree must be a whole number"),
        ({"shape": (1, 28, 28)}, "^model.degree=3 makes more than 100,000 terms of 784 features: choose model.degree=1 or "),
        ({"shape": (65,), "degree": 10**9}, "choose model.degree=3 or model=mlp$"),
        ({"shape": (3, 200, 200)}, "of 120,000 features: choose model=mlp$"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        PolynomialModel(**{"shape": (4,), "outputs": 2, **arguments})


def test_as_many_terms_as_are_allowed():
    assert PolynomialModel((82,), 1).head.in_features == math.comb(85, 3) - 1 < 100_000 < math.comb(86, 3) - 1
    with pytest.raises(RecipeError, match="of 83 features"):
        PolynomialModel((83,), 1)
