"""Kaiming initialization, normal (He et al., 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.init._draw import WeightInit


class KaimingNormalInit(WeightInit):
    """Keep the variance of signals through layers of rectified linear units, which are 0 for half of their inputs.

    W ~ N(0, 2 / n_in); biases 0. For a convolution n_in counts the weights of one output.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015; lectures A, B and C.
    """

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
