"""What flips share that mirror a random choice of the images."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from plugins.augmentation._geometry import Geometric, Move, flip
from plugins.base import Stage, declare


class RandomFlip(Geometric):
    """Mirrors each image with probability p; a subclass says along which `dimension`."""

    stage = Stage.GEOMETRY
    dimension: ClassVar[int]

    p: float = declare.share("probability that an image is mirrored", default=0.5, off=0.0)

    def draw(self, x: Tensor, generator: torch.Generator) -> Move:
        """Mirror a random choice of the images."""
        mirrored = torch.rand(len(x), device=x.device, generator=generator, dtype=torch.float32) < self.p
        return lambda images, fill: flip(images, mirrored, self.dimension)
