"""Norms of weights, and the points near them at which these are small."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Inexact


def absolute_sum(weights: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Σ|w| over all weights, a scalar; 0 where there are none, as where all are frozen."""
    return _total([weight.abs().sum() for weight in weights])


def square_sum(weights: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Σw² over all weights, a scalar; 0 where there are none, as where all are frozen."""
    return _total([torch.vdot(weight.flatten(), weight.flatten()).real for weight in weights])


def _total(sums: list[Tensor]) -> Tensor:
    return torch.stack(sums).sum() if sums else torch.zeros(())


def soft_threshold(weight: Inexact[Tensor, " *shape"], by: float | Tensor) -> Inexact[Tensor, " *shape"]:
    """sign(w) · max(0, |w| − by): the minimum over v of ½‖v − w‖² + by · Σ|v|."""
    return weight.sgn() * (weight.abs() - by).clamp_min(0)
