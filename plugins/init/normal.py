"""Small random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.base import declare
from plugins.init._draw import WeightInit


class NormalInit(WeightInit):
    """Draw weights from one normal distribution, whatever the size of the layer.

    W ~ N(0, std²); biases 0. In a deep network signals die out (std too small) or saturate (std too large).

    Source: lectures A and B, which show where it fails.
    """

    std: float = declare.number("standard deviation", default=0.01, above=0)

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        weight.normal_(0, self.std, generator=generator)
