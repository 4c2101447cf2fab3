"""Gradient descent with steps of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from plugins.base import expect_nonnegative


class NormalizedGradient(Optimizer):
    """Follow the gradient's direction, whatever its length.

    θ ← θ − lr · g / (‖g‖₂ + 10⁻¹²), with ‖g‖₂ over all parameters.

    Args:
        lr: length of a step, ≥ 0.

    Source: Nesterov, "Minimization methods for nonsmooth convex and quasiconvex functions", 1984.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float = 0.05) -> None:
        expect_nonnegative("lr", lr)
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one update."""
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        moved = [(p, group["lr"]) for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([parameter.grad for parameter, _ in moved])
        for parameter, lr in moved:
            parameter.sub_(lr / (norm + 1e-12) * parameter.grad)
        return loss
