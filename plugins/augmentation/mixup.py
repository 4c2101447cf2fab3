"""Mixup (Zhang et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.augmentation._mixing import Mixing, mix, symmetric_beta
from plugins.base import declare


class Mixup(Mixing):
    """Train on weighted means of two samples and of their targets.

    x ← λ x + (1 − λ) x′, t ← λ t + (1 − λ) t′ with λ ~ Beta(α, α) drawn for every sample; the partners (x′, t′) are a
    permutation of the batch. Targets become class probabilities; those of a regression are mixed as they are. With
    another mixing technique beside it, each batch gets one of the two.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """

    alpha: float = declare.number(
        "weights are drawn from Beta(alpha, alpha)",
        default=0.2,
        least=0,
        off=0.0,
        more="The larger, the nearer λ is to ½; 1 is uniform.",
    )

    def mixed(self, x: Tensor, partners: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, None]:
        """Weighted means, and their weights λ."""
        share = symmetric_beta(self.alpha, len(x), x.device, generator)
        return mix(x, partners, share), share, None
