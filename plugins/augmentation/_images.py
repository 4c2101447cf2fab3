"""What the augmentations of images share: what they need, what they fill in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Batch, Module, Plugin, Refusal, Selection, Stage

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class ImageAugmentation(Plugin):
    """An augmentation that needs samples of the shape (channels, height, width); a subclass says in `transform` what it does.

    One that leaves every pixel in its place is right for class maps, and says so by `on_class_maps`; for one that moves pixels
    see :class:`Geometric` in `_geometry.py`.
    """

    on_named_inputs = False

    def transform(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """New images from images (samples, channels, height, width), with draws of its own for each sample; x stays as it is."""
        raise NotImplementedError

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Change the images."""
        return replace(batch, x=self.transform(batch.x, module.generator(self.option)))

    def check(self, selection: Selection) -> None:
        """Refuse data that are not images."""
        super().check(selection)
        if not selection.setting.is_image:
            raise Refusal(
                f"{self.state_key} needs images (channels, height, width), but a sample has the shape "
                f"{selection.setting.shape}: choose data of images or leave {self.option} out"
            )


class Coloured(ImageAugmentation):
    """An augmentation of colours: of images with 1 or 3 channels and values in [0, 1]."""

    stage = Stage.COLOUR

    def check(self, selection: Selection) -> None:
        """Refuse images that have no colours, or of other units."""
        super().check(selection)
        setting = selection.setting
        if setting.shape[0] not in (1, 3):
            raise Refusal(f"{self.state_key} needs images with 1 or 3 channels, these have {setting.shape[0]}: leave it out")
        if setting.extremes and not setting.valid_range:
            low, high = setting.extremes
            raise Refusal(
                f"{self.state_key} needs images from 0 to 1, and these reach from {low:.4g} to {high:.4g}: scale them, or leave it out"
            )


class FilledIn(ImageAugmentation):
    """An augmentation that puts a value where there is no pixel: black, unless images are in other units, where it must be given.

    A subclass declares `fill`, and redefines `fills` where it may have nothing to fill in.
    """

    @property
    def fill(self) -> float | None:
        """The value; None: 0."""
        raise NotImplementedError

    def fills(self) -> bool:
        """Whether there is anything to fill in."""
        return True

    @property
    def blank(self) -> float:
        """The value that is put in."""
        return 0.0 if self.fill is None else float(self.fill)

    def check(self, selection: Selection) -> None:
        """Refuse to guess which value is blank."""
        super().check(selection)
        setting = selection.setting
        if self.fill is None and self.fills() and setting.extremes and not setting.valid_range:
            low, high = setting.extremes
            raise Refusal(
                f"{self.state_key} fills in 0, black in images from 0 to 1, and these reach from {low:.4g} to {high:.4g}: type "
                f"{self.group}.{self.option}.fill=VALUE, the value of an empty place in their units"
            )


def boxes(
    x: Float[Tensor, "samples channels height width"],
    rows: Int[Tensor, " samples"],
    columns: Int[Tensor, " samples"],
    heights: Int[Tensor, " samples"] | int,
    widths: Int[Tensor, " samples"] | int,
) -> Float[Tensor, "samples 1 height width"]:
    """Masks (samples, 1, H, W), 1 inside a box centred at (rows, columns), cut off at the border, and 0 elsewhere.

    They are numbers of x's type: multiplying by 0 and 1 is exact, and several times faster than choosing.
    """
    inside_rows = _inside(x.shape[-2], rows, heights).to(x.dtype)
    inside_columns = _inside(x.shape[-1], columns, widths).to(x.dtype)
    return inside_rows[:, None, :, None] * inside_columns[:, None, None, :]


def erased(
    x: Float[Tensor, "samples channels height width"], mask: Float[Tensor, "samples 1 height width"], fill: float = 0.0
) -> Float[Tensor, "samples channels height width"]:
    """Images with `fill` where the mask is 1."""
    return x * (1 - mask) + fill * mask if fill else x * (1 - mask)


def below(count: Int[Tensor, " samples"], generator: torch.Generator) -> Int[Tensor, " samples"]:
    """A whole number from 0 to count − 1 for each sample, all equally likely."""
    drawn = torch.rand(count.shape, device=count.device, generator=generator, dtype=torch.float32)
    return (drawn * count).long().minimum(count - 1)  # a product may be rounded up to the count


def between(ends: Sequence[float], samples: int, device: torch.device, generator: torch.Generator) -> Float[Tensor, " samples"]:
    """A number between two ends for each sample, all equally likely."""
    return ends[0] + (ends[1] - ends[0]) * torch.rand(samples, device=device, generator=generator, dtype=torch.float32)


def _inside(length: int, centre: Tensor, extent: Tensor | int) -> Tensor:
    first = (centre - extent // 2).unsqueeze(1)
    last = first + (extent if isinstance(extent, int) else extent.unsqueeze(1))
    position = torch.arange(length, device=centre.device)
    return (position >= first) & (position < last)
