"""Uniform random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.base import declare, expect
from plugins.init._draw import WeightInit


class UniformInit(WeightInit):
    """Draw weights from one uniform distribution, whatever the size of the layer.

    W ~ U(low, high); biases 0. With U(−1, 1) a layer of n inputs multiplies the deviation of its signals by √(n / 3), so that they explode.

    Raises:
        RecipeError: low is not below high.

    Source: lecture A, which shows where it fails.
    """

    low: float = declare.number("lower end", default=-1.0)
    high: float = declare.number("upper end", default=1.0, note="above low")

    def __post_init__(self) -> None:
        expect(self.low < self.high, "init.low and init.high", "two numbers, low < high", (self.low, self.high))

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        weight.uniform_(self.low, self.high, generator=generator)
