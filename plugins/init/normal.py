"""Small random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.base import expect_positive
from plugins.init._draw import WeightInit


class NormalInit(WeightInit):
    """Draw weights from one normal distribution, whatever the size of the layer.

    W ~ N(0, std²); biases 0. In a deep network signals die out (std too small) or saturate (std too large).

    Args:
        std: standard deviation, > 0.

    Raises:
        RecipeError: std out of range.

    Source: lectures A and B, which show where it fails.
    """

    def __init__(self, std: float = 0.01) -> None:
        expect_positive("std", std)
        self.std = std

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        weight.normal_(0, self.std, generator=generator)
