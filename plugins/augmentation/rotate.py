"""Random rotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._geometry import Move, Padded
from plugins.augmentation._images import between
from plugins.augmentation._warping import places, sample
from plugins.base import Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Float


def rotation(angle: Float[Tensor, " samples"]) -> Float[Tensor, "samples 2 3"]:
    """Where pixels come from in images that are turned counterclockwise by an angle in degrees."""
    radians = torch.deg2rad(angle)
    sine, cosine, none = radians.sin(), radians.cos(), torch.zeros_like(radians)
    return torch.stack([torch.stack([cosine, -sine, none], 1), torch.stack([sine, cosine, none], 1)], 1)


class Rotate(Padded):
    """Turn each image around its middle by a random angle, and class maps with it.

    x'[c, p] = x[c, R(θ) p] with θ uniform in [−degrees, degrees] and places p in pixels from the middle; between pixels the mean of the four
    around, by how near they are, in class maps the label of the nearest one. Corners that come in are filled, in class maps with the label that the loss ignores.

    Raises:
        Refusal: the data are not images, or images outside of [0, 1] without a fill; class maps, and a loss that ignores no label.

    Source: lecture A (data augmentation).
    """

    stage = Stage.GEOMETRY

    degrees: float = declare.number("largest angle, to either side", default=15.0, unit="degrees", least=0, most=180, off=0.0)

    def draw(self, x: Tensor, generator: torch.Generator) -> Move:
        """Turn each image by an angle of its own."""
        angle = between([-self.degrees, self.degrees], len(x), x.device, generator)
        columns, rows = places(rotation(angle), *x.shape[-2:])
        return lambda images, fill: sample(images, columns, rows, fill)
