"""One number for all weights."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.base import declare
from plugins.init._alike import AlikeInit


class ConstantInit(AlikeInit):
    """Set all weights to one number, to show what becomes of it.

    W = value; biases 0. The hidden units of a layer are copies of each other: they get the same gradient and stay identical.

    Source: lectures B and C, which warn of it.
    """

    value: float = declare.number("value of every weight", default=0.1)

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        weight.fill_(self.value)
