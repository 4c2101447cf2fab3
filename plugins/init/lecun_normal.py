"""LeCun initialization, normal (LeCun et al., 1998)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.init._draw import WeightInit


class LecunNormalInit(WeightInit):
    """Keep the variance of signals, forward, through layers that are nearly linear.

    W ~ N(0, 1 / n_in); biases 0. For a convolution n_in counts the weights of one output. Nothing is cut off, as some libraries do beyond
    two deviations.

    Source: LeCun et al., "Efficient BackProp", 1998, section 4.6; lecture B, "in practical deployment", and lecture C.
    """

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        nn.init.kaiming_normal_(weight, nonlinearity="linear", generator=generator)
