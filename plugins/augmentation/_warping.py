"""Affine changes of images, each by a matrix of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def warp(
    x: Float[Tensor, "samples channels height width"], matrix: Float[Tensor, "samples 2 3"], mode: str = "nearest"
) -> Float[Tensor, "samples channels height width"]:
    """out[c, p] = x[c, A p + b], 0 outside, with places p = (column, row) in pixels from the middle of the image.

    `mode` is nearest, the nearest pixel, or bilinear, a mean of four. Places are numbers of 32 bits or more, whatever x has.
    """
    dtype, (height, width) = torch.promote_types(x.dtype, torch.float32), x.shape[-2:]
    rows, columns = (torch.arange(n, device=x.device, dtype=dtype) - (n - 1) / 2 for n in (height, width))
    places = []
    for of_axis, side in zip(matrix.to(dtype).unbind(1), (width, height), strict=True):
        of_column, of_row, shift = (factor.view(-1, 1, 1) for factor in of_axis.unbind(1))
        # no product of matrices, which autocast would round
        places.append((of_column * columns + of_row * rows.unsqueeze(1) + shift) * (2 / side))
    grid = torch.stack(places, -1)
    return F.grid_sample(x.to(dtype), grid, mode=mode, padding_mode="zeros", align_corners=False).to(x.dtype)
