"""Random horizontal flips."""

from __future__ import annotations

from dataclasses import replace

import torch

from plugins.augmentation._images import ImageAugmentation, flip
from plugins.base import Batch, Module, Stage, expect_probability


class HorizontalFlip(ImageAugmentation):
    """Mirror each image left to right with probability p.

    x[…, j] ← x[…, width − 1 − j], an exact copy of pixels.

    Args:
        p: probability that an image is mirrored, in [0, 1]; 0 is an exact no-op.

    Raises:
        RecipeError: p out of range.
        Refusal: the data are not images.

    Source: lecture A (data augmentation).
    """

    stage = Stage.GEOMETRY
    off = {"p": 0.0}

    def __init__(self, p: float = 0.5) -> None:
        expect_probability("p", p)
        self.p = p

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Mirror a random choice of the images."""
        if self.p == 0:
            return batch
        mirrored = torch.rand(len(batch), device=batch.x.device, generator=module.generator(self.option)) < self.p
        return replace(batch, x=flip(batch.x, mirrored))
