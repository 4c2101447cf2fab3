"""Affine changes of images, each by a matrix of its own, with the nearest pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def warp(
    x: Float[Tensor, "samples channels height width"], matrix: Float[Tensor, "samples 2 3"]
) -> Float[Tensor, "samples channels height width"]:
    """out[c, p] = x[c, A p + b]: the nearest pixel, 0 outside, with places p = (column, row) in pixels from the middle of the image."""
    height, width = x.shape[-2:]
    rows, columns = (torch.arange(n, device=x.device, dtype=x.dtype) - (n - 1) / 2 for n in (height, width))
    places = torch.stack(
        [columns.expand(height, width), rows.unsqueeze(1).expand(height, width), x.new_ones(height, width)], -1
    )
    scaled = matrix.transpose(1, 2) / x.new_tensor([width / 2, height / 2])
    grid = (places.view(1, -1, 3).expand(len(x), -1, -1) @ scaled).view(len(x), height, width, 2)
    return F.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)
