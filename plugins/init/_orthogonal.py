"""Orthogonal matrices, drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor


def fill_orthogonal(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    """Fill a map (outputs, inputs, *kernel), seen as a matrix W (outputs, all else), with W Wᵀ = gain² · 1, in place.

    With more outputs than columns it is Wᵀ W. Uniform among all such: Q of the QR decomposition of a matrix of N(0, 1), with the signs of
    R's diagonal.
    """
    rows, columns = len(weight), weight[0].numel()
    drawn = torch.empty(max(rows, columns), min(rows, columns), device=generator.device).normal_(generator=generator)
    q, r = torch.linalg.qr(drawn)
    q = q * r.diagonal().sign()
    weight.copy_(gain * (q if rows >= columns else q.T).reshape(weight.shape))
