"""Small made data sets, in which one sees what a model has learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_moons

from plugins.base import expect_choice, expect_count, expect_nonnegative
from recipes.data.base import Data
from recipes.data.split import Split

Made = tuple[np.ndarray, np.ndarray]  # inputs (samples, features) and targets


def moons(samples: int, noise: float, seed: int) -> Made:
    """Two half circles of radius 1 that reach into each other, 2-D, two classes; all coordinates with normal noise."""
    x, y = make_moons(samples, noise=noise, random_state=seed)
    return x, y.astype(np.int64)


def polynomial(samples: int, noise: float, seed: int) -> Made:
    """Points uniform in the square [−1, 1]², of class 1 where x₂ + noise · ε > x₁³ − x₁/2, ε normal."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (samples, 2))
    above = x[:, 1] + noise * random.normal(size=samples) > x[:, 0] ** 3 - x[:, 0] / 2
    return x, above.astype(np.int64)


def sinusoid(samples: int, noise: float, seed: int) -> Made:
    """A regression: x uniform in [0, 1], y = sin(2πx) + noise · ε, ε normal."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 1, (samples, 1))
    return x, (np.sin(2 * math.pi * x) + noise * random.normal(size=x.shape)).astype(np.float32)


KINDS: dict[str, Callable[[int, float, int], Made]] = {"moons": moons, "polynomial": polynomial, "sinusoid": sinusoid}


class Toy(Data):
    """A made data set; its test split is drawn by itself, so that few training samples can be tested well.

    Args:
        name: moons | polynomial (two classes of points in the plane), sinusoid (a number of a number; Bishop, "Pattern Recognition and
            Machine Learning", figure 5.9, has ten training samples).
        samples: of training and validation together, ≥ 2.
        noise: standard deviation, ≥ 0.
        test_samples: of the test split, ≥ 1.
    """

    def __init__(
        self, name: str = "moons", samples: int = 400, noise: float = 0.2, test_samples: int = 1000, **split: Any
    ) -> None:
        super().__init__(**split)
        expect_choice("data.name", name, list(KINDS))
        expect_count("data.samples", samples, least=2)
        expect_count("data.test_samples", test_samples)
        expect_nonnegative("data.noise", noise)
        self.name, self.samples, self.noise, self.test_samples = name, samples, noise, test_samples

    def load(self) -> tuple[Split, Split | None]:
        """Features and targets, from `split_seed`."""
        return self._drawn(self.samples, 2 * self.split_seed), self._drawn(self.test_samples, 2 * self.split_seed + 1)

    def _drawn(self, samples: int, seed: int) -> Split:
        x, y = KINDS[self.name](samples, self.noise, seed)
        return Split(torch.from_numpy(x.astype(np.float32)), {"": torch.from_numpy(y)})
