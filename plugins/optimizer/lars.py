"""LARS: layerwise adaptive rate scaling (You et al., 2017)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plugins.base import expect, expect_probability
from plugins.optimizer._library import OfTimm, expect_numbers


class Lars(OfTimm):
    """Momentum with a rate for each parameter, by which a gradient is as long as a share of the parameter.

    v ← momentum · v + λ (g + weight_decay · θ), θ ← θ − ε v with λ = trust · ‖θ‖ / (‖g‖ + weight_decay · ‖θ‖ + eps); λ is 1 where θ or g is 0.
    Done by timm (extra `timm`).

    Args:
        params: parameters or groups of them.
        lr: learning rate ε, ≥ 0.
        momentum: share of the velocity that is kept in each step, in [0, 1).
        trust: the coefficient of λ, ≥ 0.
        weight_decay: share of θ that is added to the gradient, ≥ 0.
        eps: small constant against division by zero, ≥ 0.
        always_adapt: whether parameters without weight decay, such as those that `no_decay` names, have a λ too, and not 1.

    Raises:
        RecipeError: a parameter out of range; timm is not there.
        Refusal: trainer=fsdp, where no process has the norm of a whole layer.

    Source: You et al., "Large Batch Training of Convolutional Networks", 2017, algorithm 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        momentum: float = 0.9,
        trust: float = 1e-3,
        weight_decay: float = 1e-4,
        eps: float = 1e-8,
        always_adapt: bool = True,
    ) -> None:
        expect_numbers(lr=lr, trust=trust, weight_decay=weight_decay, eps=eps)
        expect_probability("momentum", momentum)
        expect(momentum < 1, "momentum", "a number in [0, 1)", momentum)
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eps": eps, "always_adapt": always_adapt}
        super().__init__(self.library().Lars(params, trust_coeff=trust, **settings))
