"""Random horizontal flips."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.augmentation._geometry import Geometric, Move, flip
from plugins.base import Stage, declare


class HorizontalFlip(Geometric):
    """Mirror each image left to right with probability p, and class maps with it.

    x[…, j] ← x[…, width − 1 − j], an exact copy of pixels.

    Raises:
        Refusal: the data are not images.

    Source: lecture A (data augmentation).
    """

    stage = Stage.GEOMETRY

    p: float = declare.share("probability that an image is mirrored", default=0.5, off=0.0)

    def draw(self, x: Tensor, generator: torch.Generator) -> Move:
        """Mirror a random choice of the images."""
        mirrored = torch.rand(len(x), device=x.device, generator=generator, dtype=torch.float32) < self.p
        return lambda images, fill: flip(images, mirrored)
