"""Random translations by whole pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.augmentation._geometry import Move, Padded, crop
from plugins.base import Refusal, Selection, Stage, declare


class Translate(Padded):
    """Shift each image along both axes by a random number of pixels, and class maps with it.

    x'[c, i, j] = x[c, i − d, j − e] with whole d and e, each uniform over all from −k to k, k = ⌊fraction · side + ½⌋; an exact copy of pixels.
    What comes in is filled, in class maps with the label that the loss ignores.

    Raises:
        Refusal: the data are not images, or images outside of [0, 1] without a fill; a fraction of less than half a pixel; class maps, and a loss that ignores no label.

    Source: lecture A (data augmentation: translating along the x or y axis).
    """

    stage = Stage.GEOMETRY

    fraction: float = declare.share("largest shift as a share of the image's side", default=0.125, off=0.0)

    def reach(self, side: int) -> int:
        """The largest shift along a side, in pixels."""
        return int(self.fraction * side + 0.5)

    def check(self, selection: Selection) -> None:
        """Refuse a shift that never reaches a pixel."""
        super().check(selection)
        longest = max(selection.setting.shape[1:])
        if not self.reach(longest):
            raise Refusal(
                f"augmentation/translate shifts by whole pixels, and {self.fraction:g} of {longest} is less than half of one: type "
                f"augmentation.translate.fraction={1 / longest:.2g} or more, or leave it out"
            )

    def draw(self, x: Tensor, generator: torch.Generator) -> Move:
        """Shift each image by numbers of its own."""
        height, width = x.shape[-2:]
        down, right = (
            torch.randint(-self.reach(side), self.reach(side) + 1, (len(x),), device=x.device, generator=generator)
            for side in (height, width)
        )
        most = max(self.reach(height), self.reach(width))
        return lambda images, fill: crop(images, most - down, most - right, most, height, width, fill)
