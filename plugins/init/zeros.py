"""All weights zero."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.init._alike import AlikeInit


class ZerosInit(AlikeInit):
    """Set all weights to 0, to show what becomes of it.

    W = 0; biases 0. With one hidden layer or more no gradient reaches a weight but the bias of the last layer; in any case the
    hidden units of a layer get the same gradient and stay identical. A model of one layer, as softmax regression, trains well.

    Source: lectures C and E, which warn of it.
    """

    refuses = {"inference/mc_dropout": "a network of zeros returns the same whatever is dropped: type init=framework"}

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        weight.zero_()
