"""Nearest neighbours of points."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(x: Tensor, k: int, valid: Tensor | None) -> Tensor:
    """The indices (samples, points, k) of those points that are nearest to each, itself the first of them.

    Args:
        x: features (samples, channels, points).
        k: how many.
        valid: mask (samples, points); points that it leaves out are farther than all others. None: all count.
    """
    with torch.no_grad():
        rows = x.transpose(1, 2).to(torch.promote_types(x.dtype, torch.float32))
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")  # exact, so that order changes nothing
        distances.diagonal(dim1=1, dim2=2).fill_(-1)  # before others at the same place
        if valid is not None:
            distances = distances.masked_fill(~valid.unsqueeze(1), torch.inf)
        return distances.topk(k, largest=False).indices
