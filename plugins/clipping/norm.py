"""Clipping of the gradient's norm (Pascanu et al., 2013)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from plugins.base import Module, Plugin, Stage, declare
from plugins.shards import whole

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def clip_norm(parameters: Sequence[nn.Parameter], max_norm: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Scale all gradients, in place, by min(1, max_norm / ‖g‖) with ‖g‖ over all of them; the norm before and after."""
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    before = whole(get_total_norm([parameter.grad for parameter in with_gradient]))  # type: ignore[misc]
    if math.isinf(max_norm):  # no bound: an infinite gradient must stay one, and not become 0 · ∞
        return before, before
    clip_grads_with_norm_(with_gradient, max_norm, before)
    return before, before.clamp(max=max_norm)


class ClipNorm(Plugin):
    """Shorten the gradient to a norm of at most `max_norm`, keeping its direction.

    g ← g · min(1, max_norm / ‖g‖₂), with ‖g‖₂ over all parameters together. A NaN in the gradient stays a NaN.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013; lectures A, E.
    """

    stage = Stage.CLIPPING
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

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Clip, and log the norm before and after."""
        before, after = clip_norm(parameters, self.max_norm)
        self.record(module, "before", before)
        self.record(module, "after", after)
