"""SOAP: Adam in Shampoo's eigenbasis (Vyas et al., 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plugins.base import expect_count
from plugins.optimizer._library import OfLibrary, expect_betas, expect_numbers


class SOAP(OfLibrary):
    """Adam in the eigenvectors of the running averages of G Gᵀ and Gᵀ G, for each matrix G of gradients.

    L ← β₂ L + (1 − β₂) G Gᵀ and R ← β₂ R + (1 − β₂) Gᵀ G have eigenvectors Q_L, Q_R; Adam is given G′ = Q_Lᵀ G Q_R, and its step N′ is made along
    Q_L N′ Q_Rᵀ; then θ ← θ − ε · weight_decay · θ. Weights of more dimensions have a matrix for each, those of one are trained by Adam. The first
    gradient makes the first eigenvectors, and no step; later ones follow by a power iteration and a QR decomposition. Done by
    pytorch_optimizer (extra `pytorch_optimizer`).

    Args:
        params: parameters or groups of them.
        lr: learning rate ε, ≥ 0.
        betas: decay rates of the average of G, and of those of G′² and of L and R, in [0, 1).
        eps: small constant against division by zero, ≥ 0.
        weight_decay: share of each weight that lr takes away in a step, ≥ 0.
        every: steps from one set of eigenvectors to the next, ≥ 1.
        largest: side of a matrix above which it is left as it is, ≥ 1.

    Raises:
        RecipeError: a parameter out of range; pytorch_optimizer is not there.
        Refusal: trainer=fsdp, where no process has a whole matrix.

    Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025, algorithm 3.
    """

    package = extra = "pytorch_optimizer"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-3,
        betas: Sequence[float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        every: int = 10,
        largest: int = 10_000,
    ) -> None:
        expect_numbers(lr=lr, eps=eps, weight_decay=weight_decay)
        expect_betas(betas)
        expect_count("every", every)
        expect_count("largest", largest)
        settings = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        matrices = {"precondition_frequency": every, "max_precondition_dim": largest}
        super().__init__(self.library().SOAP(params, **settings, **matrices))
        for group in self.param_groups:
            group.setdefault("decoupled_weight_decay", True)  # as torch tells it
