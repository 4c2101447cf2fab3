"""Lion: evolved sign momentum (Chen et al., 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plugins.optimizer._library import OfTimm, expect_betas, expect_numbers


class Lion(OfTimm):
    """Steps of one size along the sign of momentum and gradient.

    θ ← θ − ε · weight_decay · θ − ε · sign(β₁ m + (1 − β₁) g), then m ← β₂ m + (1 − β₂) g. As each weight moves by ε, it takes a third to a tenth
    of Adam's rate, and as many times its weight decay. Elementwise; done by timm (extra `timm`).

    Args:
        params: parameters or groups of them.
        lr: learning rate ε, ≥ 0.
        betas: β₁, share of the momentum in a step, and β₂, share of it that is kept, in [0, 1).
        weight_decay: share of each weight that lr takes away in a step, ≥ 0.

    Raises:
        RecipeError: a parameter out of range; timm is not there.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, algorithm 2.
    """

    on_shards = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, betas: Sequence[float] = (0.9, 0.99), weight_decay: float = 0.1
    ) -> None:
        expect_numbers(lr=lr, weight_decay=weight_decay)
        expect_betas(betas)
        super().__init__(self.library().Lion(params, lr=lr, betas=tuple(betas), weight_decay=weight_decay))
        for group in self.param_groups:
            group.setdefault("decoupled_weight_decay", True)  # as torch tells it
