import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from plugins.base import RecipeError
from recipes.data.toy import KINDS, Toy, moons, polynomial, sinusoid

SEED = int(np.random.default_rng().integers(1 << 30))


def test_moons_are_scikit_learns():
    x, y = moons(50, 0.1, SEED)
    theirs, labels = make_moons(50, noise=0.1, random_state=SEED)
    assert np.array_equal(x, theirs) and np.array_equal(y, labels)


def test_a_polynomial_divides_the_square():
    x, y = polynomial(4000, 0.0, SEED)
    assert float(np.abs(x).max()) <= 1 and x.shape == (4000, 2)
    assert np.array_equal(y == 1, x[:, 1] > x[:, 0] ** 3 - x[:, 0] / 2)
    assert 0.45 < y.mean() < 0.55  # the curve is odd
    assert 0.02 < (polynomial(4000, 0.2, SEED)[1] != y).mean() < 0.3


def test_a_sinusoid_with_noise():
    x, y = sinusoid(5000, 0.3, SEED)
    rest = y - np.sin(2 * math.pi * x)
    assert x.shape == y.shape == (5000, 1) and x.min() >= 0 and x.max() <= 1
    assert abs(rest.mean()) < 0.02 and rest.std() == pytest.approx(0.3, rel=0.06)


@pytest.mark.parametrize("name", KINDS)
def test_splits_are_drawn_apart(name):
    data, again, other = Toy(name, validation=0.5), Toy(name, validation=0.5), Toy(name, validation=0.5, split_seed=1)
    for each in (data, again, other):
        each.setup()
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 200, "val": 200, "test": 1000}
    assert data.fingerprint == again.fingerprint != other.fingerprint
    rows = [tuple(row) for split in data.splits.values() for row in split.x.tolist()]
    assert len(set(rows)) == len(rows)
    assert data.tasks[0].kind == ("regression" if name == "sinusoid" else "classification")
    assert data.splits["train"].x.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"name": "moon"}, "data.name must be one of moons, polynomial, sinusoid"),
        ({"samples": 1}, "data.samples must be a whole number ≥ 2"),
        ({"noise": -0.1}, "data.noise"),
        ({"test_samples": 0}, "data.test_samples"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, line):
    with pytest.raises(RecipeError, match=line):
        Toy(**arguments)
