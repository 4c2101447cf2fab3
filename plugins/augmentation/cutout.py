"""Cutout (DeVries & Taylor, 2017)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from plugins.augmentation._images import ImageAugmentation, boxes
from plugins.base import Batch, Module, Stage, expect_count


def cutout(x: Tensor, rows: Tensor, columns: Tensor, size: int) -> Tensor:
    """Zero a square of `size` pixels centred at (rows, columns), both (samples,), in images (samples, channels, H, W)."""
    return x * (1 - boxes(x, rows, columns, size, size))


class Cutout(ImageAugmentation):
    """Erase a square at a random place of each image.

    x[:, i, j] ← 0 for i in [r − ⌊s/2⌋, r − ⌊s/2⌋ + s), likewise j around c; the centre (r, c) is uniform over all pixels,
    so the square may be cut off by the border.

    Args:
        size: side s of the square in pixels, ≥ 0; 0 is an exact no-op. 16 was best on CIFAR-10 (32×32), 8 on CIFAR-100.

    Raises:
        RecipeError: size out of range.
        Refusal: the data are not images.

    Source: DeVries & Taylor, "Improved Regularization of CNNs with Cutout", 2017; lecture B.
    """

    stage = Stage.ERASING
    off = {"size": 0}

    def __init__(self, size: int = 8) -> None:
        expect_count("size", size, least=0)
        self.size = size

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Erase a random square of each image."""
        if self.size == 0:
            return batch
        generator, x = module.generator(self.option), batch.x
        rows, columns = (torch.randint(n, (len(x),), device=x.device, generator=generator) for n in x.shape[-2:])
        return replace(batch, x=cutout(x, rows, columns, self.size))
