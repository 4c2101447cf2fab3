"""Orthogonal initialization (Saxe et al., 2014)."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.base import declare
from plugins.init._draw import WeightInit
from plugins.init._orthogonal import fill_orthogonal


class OrthogonalInit(WeightInit):
    """Let a layer turn signals and keep their lengths, through any number of linear layers.

    W Wᵀ = gain² · 1, or Wᵀ W for a layer with more outputs than inputs; biases 0. For a convolution W is (outputs, weights of one output).

    Source: Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014.
    """

    gain: float = declare.number("factor on the weights, such as 1.414 before rectified linear units", default=1.0, above=0)

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        fill_orthogonal(weight, self.gain, generator)
