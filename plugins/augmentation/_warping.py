"""Images whose pixels are looked up elsewhere, each image in places of its own.

Places are in pixels, from the middle of the first pixel on; computed in float32 and without products of matrices, which autocast
would round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Num


def warp(
    x: Float[Tensor, "samples channels height width"], matrix: Float[Tensor, "samples 2 3"], mode: str = "nearest"
) -> Float[Tensor, "samples channels height width"]:
    """out[c, p] = x[c, A p + b], 0 outside, with places p = (column, row) in pixels from the middle of the image.

    `mode` is nearest, the nearest pixel, or bilinear, a mean of the four around.
    """
    return _grid_sample(x, *places(matrix.float(), *x.shape[-2:]), mode)


def places(
    matrix: Float[Tensor, "samples 2 3"], height: int, width: int
) -> tuple[Float[Tensor, "samples {height} {width}"], Float[Tensor, "samples {height} {width}"]]:
    """Columns and rows of A p + b for the places p = (column, row) of an image, both in pixels from its middle."""
    rows, columns = (torch.arange(n, device=matrix.device, dtype=matrix.dtype) - (n - 1) / 2 for n in (height, width))
    entries = matrix.unsqueeze(-1).unsqueeze(-1)
    found = [entries[:, i, 0] * columns + (entries[:, i, 1] * rows.unsqueeze(1) + entries[:, i, 2]) for i in (0, 1)]
    return found[0] + (width - 1) / 2, found[1] + (height - 1) / 2


def sample(
    x: Num[Tensor, "samples channels H W"],
    columns: Float[Tensor, "samples height width"],
    rows: Float[Tensor, "samples height width"],
    fill: float = 0.0,
) -> Num[Tensor, "samples channels height width"]:
    """out[c, i, j] = x[c, rows[i, j], columns[i, j]], and `fill` outside of x.

    Floats between pixels are the mean of the four around, by how near they are; whole numbers are those of the nearest pixel.
    """
    if x.is_floating_point():
        return _grid_sample(x - fill, columns, rows, "bilinear") + fill if fill else _grid_sample(x, columns, rows, "bilinear")
    (height, width), column, row = x.shape[-2:], columns.round().long(), rows.round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = (row * width + column).masked_fill(~inside, 0).flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
    values = x.flatten(2).gather(2, index).view(*x.shape[:2], *columns.shape[1:])
    return values.masked_fill(~inside.unsqueeze(1), int(fill))


def _grid_sample(x: Tensor, columns: Tensor, rows: Tensor, mode: str) -> Tensor:
    height, width = x.shape[-2:]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
    kind = torch.promote_types(x.dtype, torch.float32)
    return F.grid_sample(x.to(kind), grid.to(kind), mode=mode, padding_mode="zeros", align_corners=False).to(x.dtype)
