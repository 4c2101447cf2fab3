"""Clipping of the gradient's norm (Pascanu et al., 2013)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from plugins.base import Module, declare
from plugins.clipping._clipping import Clipping
from plugins.clipping._norms import total_norm, with_gradient

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def clip_norm(parameters: Sequence[nn.Parameter], max_norm: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Scale all gradients, in place, by min(1, max_norm / ‖g‖) with ‖g‖ over all of them; the norm before and after."""
    clipped = with_gradient(parameters)
    before = total_norm(clipped)
    if math.isinf(max_norm):  # no bound: an infinite gradient must stay one, and not become 0 · ∞
        return before, before
    clip_grads_with_norm_(clipped, max_norm, before)
    return before, before.clamp(max=max_norm)


class ClipNorm(Clipping):
    """Shorten the gradient to a norm of at most `max_norm`, keeping its direction.

    g ← g · min(1, max_norm / ‖g‖₂), with ‖g‖₂ over all parameters together. A NaN in the gradient stays a NaN.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013; lectures A, E.
    """

    on_shards = True
    measures_when_off = True

    max_norm: float = declare.number(
        "largest norm of the gradient over all parameters together",
        default=1.0,
        above=0,
        infinite=True,
        also=".inf for no bound",
        off=math.inf,
        more="The norm is logged all the same.",
    )

    def clip(self, module: Module, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
        """Scale all gradients, where their norm is too large."""
        return clip_norm(parameters, self.max_norm)
