"""Random crops, resized to the whole image (Szegedy et al., 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._geometry import Geometric, Move
from plugins.augmentation._images import below
from plugins.augmentation._warping import sample
from plugins.augmentation._windows import draw_windows
from plugins.base import Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def enlarged(length: int, first: Int[Tensor, " samples"], extent: Int[Tensor, " samples"]) -> Float[Tensor, "samples {length}"]:
    """Where each of `length` pixels lies in the `extent` pixels from `first` on, of which it gets no others."""
    inside = (torch.arange(length, device=first.device, dtype=torch.float32) + 0.5) * (
        extent.to(torch.float32) / length
    ).unsqueeze(1) - 0.5
    return first.unsqueeze(1) + inside.clamp(min=0).minimum(extent.unsqueeze(1) - 1)


class ResizedCrop(Geometric):
    """Cut a window of a random size and shape out of each image and resize it to the whole image; class maps with it.

    The window takes a share of the image's area, uniform in `scale`, with a ratio of width to height whose logarithm is uniform between those of
    `ratio`; ten are drawn, and the first that fits is taken, or else the largest in the middle with a ratio as near as can be. Between pixels the mean of the four
    around, by how near they are, in class maps the label of the nearest one.

    Raises:
        Refusal: the data are not images.

    Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6.
    """

    stage = Stage.GEOMETRY

    scale: list[float] = declare.interval(
        "share of the image's area in the window, from and to", default=[0.08, 1.0], above=0, most=1, off=[1.0, 1.0]
    )
    ratio: list[float] = declare.interval("width over height of the window, from and to", default=[0.75, 1.3333], above=0)

    def middle(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the largest window in the middle, with a ratio as near to that of the image as can be."""
        low, high = self.ratio
        if width / height < low:
            return max(1, round(width / low)), width
        return height, max(1, min(width, round(height * high)))

    def windows(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first row, the first column, the height and the width of a window for each image."""
        height, width = x.shape[-2:]
        heights, widths, fits = draw_windows(len(x), (height, width), self.scale, self.ratio, x.device, generator)
        high, wide = self.middle(height, width)
        heights, widths = heights.where(fits, high), widths.where(fits, wide)
        top, left = below(height - heights + 1, generator), below(width - widths + 1, generator)
        return top.where(fits, (height - high) // 2), left.where(fits, (width - wide) // 2), heights, widths

    def draw(self, x: Tensor, generator: torch.Generator) -> Move:
        """Resize a window of its own of each image."""
        height, width = x.shape[-2:]
        top, left, heights, widths = self.windows(x, generator)
        rows = enlarged(height, top, heights).unsqueeze(2).expand(-1, -1, width)
        columns = enlarged(width, left, widths).unsqueeze(1).expand(-1, height, -1)
        return lambda images, fill: sample(images, columns, rows, fill)
