"""Random erasing (Zhong et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.augmentation._images import FilledIn, below, boxes, erased
from plugins.augmentation._windows import draw_windows
from plugins.base import Stage, declare

RATIO = (0.3, 1 / 0.3)  # of width to height


class RandomErasing(FilledIn):
    """Erase a rectangle at a random place of each image, with probability p.

    x[:, i, j] ← fill inside of a rectangle that takes a share of the image's area, uniform in `area`, with a ratio of width to height whose
    logarithm is uniform between those of 0.3 and 1 / 0.3; it lies inside of the image, anywhere. Ten are drawn, and the first that fits is taken.

    Raises:
        Refusal: the data are not images, or images outside of [0, 1] without a fill.

    Source: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.
    """

    stage = Stage.ERASING
    on_class_maps = True  # the labels of what is erased stay right

    p: float = declare.share("probability that something of an image is erased", default=0.5, off=0.0)
    area: list[float] = declare.interval(
        "share of the image's area that is erased, from and to", default=[0.02, 0.4], above=0, most=1
    )
    fill: float | None = declare.number("the value put in", default=None, null="0, black in images from 0 to 1")

    def transform(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Erase a rectangle of its own in some of the images."""
        samples, (height, width) = len(x), x.shape[-2:]
        chosen = torch.rand(samples, device=x.device, generator=generator, dtype=torch.float32) < self.p
        heights, widths, fits = draw_windows(samples, (height, width), self.area, RATIO, x.device, generator)
        top, left = (
            below(height - heights.clamp(max=height) + 1, generator),
            below(width - widths.clamp(max=width) + 1, generator),
        )
        heights = heights * (chosen & fits)
        return erased(x, boxes(x, top + heights // 2, left + widths // 2, heights, widths), self.blank)
