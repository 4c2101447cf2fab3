"""A polynomial of the features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plugins.base import RecipeError, expect_count

LARGEST = 100_000  # terms


class PolynomialModel(nn.Module):
    """One linear layer on all products of one to `degree` features, with repetition: Σ_a w_a ∏ᵢ xᵢ^aᵢ + b over 1 ≤ Σᵢ aᵢ ≤ degree.

    Terms stand in order of their degree, then of the features in them; of n features there are C(n + degree, degree) − 1. Features far
    from [−1, 1] make high powers large, so that a rate that is right for model=linear may be too large.

    Source: Hastie, Tibshirani & Friedman, "The Elements of Statistical Learning", chapter 5.

    Args:
        shape: of a sample, which is flattened.
        outputs: size of the last layer.
        degree: of the largest terms, ≥ 1; 1: a linear model.

    Raises:
        RecipeError: more than 100,000 terms.
    """

    taken: Tensor
    factors: Tensor

    def __init__(self, shape: Sequence[int], outputs: int, degree: int = 3) -> None:
        super().__init__()
        expect_count("model.degree", degree)
        features = math.prod(shape)
        _expect_few(features, degree)
        taken, factors = [], []  # of each term the one of a degree less, and the feature that it is multiplied with
        last, self.sizes = list(range(features)), [0] * (degree - 1)  # the last feature in each term of a degree
        for order in range(degree - 1):
            pairs = [(term, feature) for term, least in enumerate(last) for feature in range(least, features)]
            last, self.sizes[order] = [feature for _, feature in pairs], len(pairs)
            taken += [term for term, _ in pairs]
            factors += last
        for name, index in (("taken", taken), ("factors", factors)):
            self.register_buffer(name, torch.tensor(index, dtype=torch.int64), persistent=False)
        self.head = nn.Linear(features + len(factors), outputs)

    def terms(self, x: Tensor) -> Tensor:
        """The products (samples, terms) of samples (samples, *shape)."""
        features = x.flatten(1)
        orders = [features]
        for taken, factors in zip(self.taken.split(self.sizes), self.factors.split(self.sizes), strict=True):
            orders.append(orders[-1].index_select(1, taken) * features.index_select(1, factors))
        return torch.cat(orders, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (samples, outputs)."""
        return self.head(self.terms(x))


def _expect_few(features: int, degree: int) -> None:
    """Refuse a degree that makes too many terms."""
    able = 0
    while able < degree and math.comb(features + able + 1, features) - 1 <= LARGEST:
        able += 1
    if able < degree:
        fix = f"model.degree={able} or model=mlp" if able else "model=mlp"
        raise RecipeError(f"model.degree={degree} makes more than {LARGEST:,} terms of {features:,} features: choose {fix}")
