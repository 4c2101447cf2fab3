"""Clipping without an edge."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from plugins.base import Module, Plugin, Stage, expect


@torch.no_grad()
def shorten(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """g ← g · c / (c + ‖g‖₂) in place, with ‖g‖ over all gradients; the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm(gradients)
    for gradient in gradients:
        gradient.mul_(max_norm / (max_norm + norm))
    return norm


class Soft(Plugin):
    """Shorten every gradient a little, long ones to a norm of almost `max_norm`, keeping the direction.

    g ← g · c / (c + ‖g‖₂), so that ‖g‖₂ < c = max_norm.

    Args:
        max_norm: the bound that no gradient reaches, > 0; .inf is an exact no-op.

    Source: Zhang et al., "Why Gradient Clipping Accelerates Training", 2020, which bounds the step by η / (1 + ‖g‖ / γ).
    """

    stage = Stage.CLIPPING
    off = {"max_norm": math.inf}

    def __init__(self, max_norm: float = 1.0) -> None:
        expect(isinstance(max_norm, int | float) and max_norm > 0, "max_norm", "a number > 0, or .inf", max_norm)
        self.max_norm = max_norm

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Right before the update."""
        if math.isfinite(self.max_norm):
            self.record(module, "before", shorten(parameters, self.max_norm))
