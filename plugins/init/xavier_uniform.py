"""Xavier initialization, uniform (Glorot & Bengio, 2010)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plugins.init._draw import WeightInit


class XavierUniformInit(WeightInit):
    """Keep the variance of signals, forward and backward, through layers that are nearly linear.

    W ~ U(−a, a), a = √(6 / (n_in + n_out)), so that var W = 2 / (n_in + n_out); biases 0.
    n_in and n_out count the weights that one output and one input take part in; in a recurrent layer, those of one gate.

    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010;
    lectures A, B, C and D.
    """

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        nn.init.xavier_uniform_(weight, generator=generator)
