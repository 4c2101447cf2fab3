"""A layer of maxout units."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from plugins.base import expect_count


class Maxout(nn.Module):
    """One hidden layer, whose units are the largest of several linear functions, and a linear layer.

    h_i = max_j (W_ij x + b_ij).

    Args:
        shape: of a sample.
        outputs: size of the last layer.
        hidden: units.
        pieces: linear functions of each unit.

    Source: Goodfellow et al., "Maxout Networks", ICML 2013.
    """

    def __init__(self, shape: Sequence[int], outputs: int, hidden: int = 64, pieces: int = 2) -> None:
        expect_count("model.hidden", hidden)
        expect_count("model.pieces", pieces)
        super().__init__()
        self.hidden, self.pieces = hidden, pieces
        self.functions = nn.Linear(math.prod(shape), hidden * pieces)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (samples, outputs) for inputs (samples, *shape)."""
        return self.output(self.functions(x.flatten(1)).unflatten(1, (self.hidden, self.pieces)).amax(2))
