"""Random zooms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._geometry import Move, Padded
from plugins.augmentation._images import between
from plugins.augmentation._warping import places, sample
from plugins.base import Stage, declare, expect

if TYPE_CHECKING:
    from jaxtyping import Float


def scaling(factor: Float[Tensor, " samples"]) -> Float[Tensor, "samples 2 3"]:
    """Where pixels come from in images that are enlarged by a factor."""
    none = torch.zeros_like(factor)
    return torch.stack([torch.stack([1 / factor, none, none], 1), torch.stack([none, 1 / factor, none], 1)], 1)


class Zoom(Padded):
    """Enlarge or shrink each image around its middle by a random factor, and class maps with it.

    x'[c, p] = x[c, p / z] with z uniform in [low, high] and places p in pixels from the middle; between pixels the mean of the four around, by how
    near they are, in class maps the label of the nearest one. What comes in around a shrunk image is filled, in class maps with the label that the loss ignores.

    Raises:
        RecipeError: low above high.
        Refusal: the data are not images, or images outside of [0, 1] without a fill; class maps that are shrunk, and a loss that ignores no label.

    Source: lecture A (data augmentation: zooming and scaling).
    """

    stage = Stage.GEOMETRY

    low: float = declare.number("smallest factor", default=0.8, above=0, off=1.0, more="Below 1 an image gets smaller.")
    high: float = declare.number("largest factor", default=1.2, above=0, off=1.0)

    def __post_init__(self) -> None:
        """Refuse ends in the wrong order."""
        expect(self.low <= self.high, "low", f"at most high, {self.high:g}", self.low)

    def fills(self) -> bool:
        """Whether an image may get smaller."""
        return self.low < 1

    @property
    def instead(self) -> str:
        """Factors that need no padding."""
        return "augmentation.zoom.low=1"

    def draw(self, x: Tensor, generator: torch.Generator) -> Move:
        """Zoom each image by a factor of its own."""
        factor = between([self.low, self.high], len(x), x.device, generator)
        columns, rows = places(scaling(factor), *x.shape[-2:])
        return lambda images, fill: sample(images, columns, rows, fill)
