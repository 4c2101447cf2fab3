"""Clipping of each number of the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plugins.base import Module, declare
from plugins.clipping._clipping import Clipping
from plugins.clipping._norms import total_norm, with_gradient
from plugins.shards import parts

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def clip_value(parameters: Sequence[nn.Parameter], largest: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Bring each number of all gradients, in place, into [−largest, largest]; the norm before and after."""
    clipped = with_gradient(parameters)
    before = total_norm(clipped)
    if math.isinf(largest) or not clipped:
        return before, before
    gradients = parts(parameter.grad for parameter in clipped)
    torch._foreach_clamp_min_(gradients, -largest)
    torch._foreach_clamp_max_(gradients, largest)
    return before, total_norm(clipped)


class ClipValue(Clipping):
    """Bring each number of the gradient into [−max, max].

    g_i ← min(max, max(−max, g_i)) for each weight by itself, so the direction changes where a number is cut. A NaN stays a NaN.

    Source: Mikolov, "Statistical language models based on neural networks", 2012; Goodfellow, Bengio & Courville, "Deep Learning",
    section 10.11.1.
    """

    on_shards = True
    measures_when_off = True

    max: float = declare.number(
        "largest absolute value of a number of the gradient",
        default=0.5,
        above=0,
        infinite=True,
        also=".inf for no bound",
        off=math.inf,
        more="The norm is logged all the same.",
    )

    def clip(self, module: Module, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
        """Cut each number, where it is too large."""
        return clip_value(parameters, self.max)
