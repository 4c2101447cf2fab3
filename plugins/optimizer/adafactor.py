"""Adafactor: Adam with a second moment that is kept in rows and columns (Shazeer & Stern, 2018)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import optim

from plugins.base import Option, expect, expect_probability
from plugins.optimizer._library import expect_numbers


class Adafactor(Option, optim.Adafactor):
    """Steps that are a share of the size of the weights, with a second moment of each matrix that is kept as a row and a column.

    u = g / √v, where v of a matrix is the product of the running averages of the means of g² over rows and over columns, divided by the mean of
    all, decay rate 1 − t^(−decay); u ← u / max(1, RMS(u) / clip); θ ← θ − ε · weight_decay · θ − max(eps, RMS(θ)) · min(ε, 1/√t) · u. From step 1/ε² on
    the rate falls by itself, and what multiplies ε only moves that step.

    Args:
        params: parameters or groups of them.
        lr: largest relative step ε, ≥ 0.
        weight_decay: share of each weight that lr takes away in a step, ≥ 0.
        decay: exponent of the decay rate, in [0, 1].
        clip: largest root mean square of u, ≥ 1.
        eps: least root mean square that weights are taken to have, ≥ 0.

    Raises:
        RecipeError: a parameter out of range.
        Refusal: trainer=fsdp, where no process has whole rows and columns.

    Source: Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018, algorithms 4 to 6; torch.optim.Adafactor.
    """

    on_shards = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        weight_decay: float = 0.0,
        decay: float = 0.8,
        clip: float = 1.0,
        eps: float = 1e-3,
    ) -> None:
        expect_numbers(lr=lr, weight_decay=weight_decay, eps=eps)
        expect_probability("decay", decay)
        expect_numbers(clip=clip)
        expect(clip >= 1, "clip", "a number ≥ 1", clip)
        super().__init__(params, lr, beta2_decay=-decay, eps=(None, eps), d=clip, weight_decay=weight_decay)
        for group in self.param_groups:
            group.setdefault("decoupled_weight_decay", True)  # as torch tells it
