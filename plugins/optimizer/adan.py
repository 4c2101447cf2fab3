"""Adan: adaptive Nesterov momentum (Xie et al., 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plugins.optimizer._library import OfTimm, expect_betas, expect_numbers


class Adan(OfTimm):
    """Adam with a running average of how gradients change: a Nesterov step that needs no gradient at another point.

    With Δ = g_t − g_{t−1}, 0 in the first step: m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) Δ, n ← β₃ n + (1 − β₃) (g + β₂ Δ)², and
    θ ← (θ − ε (m̂ + β₂ v̂) / (√n̂ + eps)) / (1 + ε · weight_decay), each average over 1 − β^t. Elementwise; done by timm (extra `timm`).

    Args:
        params: parameters or groups of them.
        lr: learning rate ε, ≥ 0.
        betas: decay rates β₁, β₂, β₃, in [0, 1): the paper's are 1 − β.
        eps: small constant against division by zero, ≥ 0.
        weight_decay: what divides the weights beside the step, ≥ 0.

    Raises:
        RecipeError: a parameter out of range; timm is not there.

    Source: Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", 2022, algorithm 1.
    """

    on_shards = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: Sequence[float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.02,
    ) -> None:
        expect_numbers(lr=lr, eps=eps, weight_decay=weight_decay)
        expect_betas(betas, 3)
        super().__init__(self.library().Adan(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay))
        for group in self.param_groups:
            group.setdefault("decoupled_weight_decay", True)  # as torch tells it: 1 / (1 + ε · weight_decay) to first order
