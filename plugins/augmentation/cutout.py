"""Cutout (DeVries & Taylor, 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._images import FilledIn, boxes, erased
from plugins.base import Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def cutout(
    x: Float[Tensor, "samples channels height width"],
    rows: Int[Tensor, " samples"],
    columns: Int[Tensor, " samples"],
    size: int,
    fill: float = 0.0,
) -> Float[Tensor, "samples channels height width"]:
    """Fill a square of `size` pixels centred at (rows, columns), both (samples,), in images (samples, channels, H, W)."""
    return erased(x, boxes(x, rows, columns, size, size), fill)


class Cutout(FilledIn):
    """Erase a square at a random place of each image.

    x[:, i, j] ← fill for i in [r − ⌊s/2⌋, r − ⌊s/2⌋ + s), likewise j around c; the centre (r, c) is uniform over all pixels,
    so the square may be cut off by the border.

    Raises:
        Refusal: the data are not images, or images outside of [0, 1] without a fill.

    Source: DeVries & Taylor, "Improved Regularization of CNNs with Cutout", 2017; lecture B.
    """

    stage = Stage.ERASING
    on_class_maps = True  # the labels of what is erased stay right

    size: int = declare.count(
        "side of the square", default=8, unit="pixels", least=0, off=0, more="16 was best on CIFAR-10 (32×32), 8 on CIFAR-100."
    )
    fill: float | None = declare.number("the value put in", default=None, null="0, black in images from 0 to 1")

    def transform(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Erase a random square of each image."""
        rows, columns = (torch.randint(n, (len(x),), device=x.device, generator=generator) for n in x.shape[-2:])
        return cutout(x, rows, columns, self.size, self.blank)
