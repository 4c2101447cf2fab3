"""Random crops of a padded image."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.augmentation._geometry import Move, Padded, crop
from plugins.base import Refusal, Selection, Setting, Stage, declare
from plugins.sizes import Resizing


class RandomCrop(Resizing, Padded):
    """Pad each image with zeros, or another value, on every side and cut a window out at a random place; class maps with it.

    x'[c, i, j] = padded(x)[c, top + i, left + j] with top and left uniform over all places; an exact copy of pixels. Class maps are
    padded with the label that the loss ignores.

    Raises:
        Refusal: the data are not images, or images outside of [0, 1] without a fill; the window is larger than the padded image; the model, what stands in front of it, a teacher or a noise by place takes no other size; class maps to pad, and a loss that ignores no label.

    Source: lecture A (data augmentation); Krizhevsky et al., NeurIPS 2012.
    """

    stage = Stage.GEOMETRY

    padding: int = declare.count(
        "pixels put around the image", default=4, least=0, off=0, more="4 is customary for 32×32 images."
    )
    size: int | None = declare.count(
        "height and width of the window",
        default=None,
        unit="pixels",
        null="those of the image",
        off=None,
        more="Validation and test see whole images, so another size needs a model that takes images of both.",
    )
    fill: float | None = declare.number("the value put around the image", default=None, null="0, black in images from 0 to 1")

    def fills(self) -> bool:
        """Whether there is anything around the image."""
        return self.padding > 0

    def check(self, selection: Selection) -> None:
        """Refuse a window that is larger than the padded image."""
        super().check(selection)
        smallest = min(selection.setting.shape[1:]) + 2 * self.padding
        if self.size is not None and self.size > smallest:
            raise Refusal(
                f"augmentation/crop cannot cut {self.size} pixels out of an image of {smallest} with its padding: "
                f"raise crop.padding or lower crop.size"
            )

    @property
    def instead(self) -> str:
        """A window without padding."""
        return "augmentation.crop.padding=0 and a crop.size"

    @property
    def without(self) -> str:
        """Windows of the images' size."""
        return "leave augmentation.crop.size out"

    def sizes(self, setting: Setting) -> list[tuple[int, ...]]:
        """That of the window, where it is another one."""
        return [] if self.size is None or {*setting.shape[1:]} == {self.size} else [(self.size, self.size)]

    def draw(self, x: Tensor, generator: torch.Generator) -> Move:
        """Cut a random window out of each image."""
        height, width = (self.size or x.shape[-2]), (self.size or x.shape[-1])
        top, left = (
            torch.randint(whole + 2 * self.padding - part + 1, (len(x),), device=x.device, generator=generator)
            for whole, part in ((x.shape[-2], height), (x.shape[-1], width))
        )
        return lambda images, fill: crop(images, top, left, self.padding, height, width, fill)
