"""Random horizontal flips."""

from __future__ import annotations

from dataclasses import replace

import torch

from plugins.augmentation._images import ImageAugmentation, flip
from plugins.base import Batch, Module, Stage, declare


class HorizontalFlip(ImageAugmentation):
    """Mirror each image left to right with probability p.

    x[…, j] ← x[…, width − 1 − j], an exact copy of pixels.

    Raises:
        Refusal: the data are not images.

    Source: lecture A (data augmentation).
    """

    stage = Stage.GEOMETRY

    p: float = declare.share("probability that an image is mirrored", default=0.5, off=0.0)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Mirror a random choice of the images."""
        mirrored = torch.rand(len(batch), device=batch.x.device, generator=module.generator(self.option)) < self.p
        return replace(batch, x=flip(batch.x, mirrored))
