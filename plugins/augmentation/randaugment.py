"""RandAugment (Cubuk et al., 2020)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation import _operations as operations_of
from plugins.augmentation._images import Coloured
from plugins.augmentation._operations import Strengths, operate
from plugins.base import Batch, Module, declare

if TYPE_CHECKING:
    from jaxtyping import Float, Int

BINS = 30  # the largest magnitude
OPERATIONS = operations_of.OPERATIONS[:-2]  # all but invert and hue
STRENGTHS = Strengths(1 + BINS)


def apply(
    x: Float[Tensor, "samples channels height width"],
    operations: Int[Tensor, " samples"],
    signs: Float[Tensor, " samples"],
    m: int,
) -> Float[Tensor, "samples channels height width"]:
    """Do to each image one of `OPERATIONS`, by number, with magnitude m in the direction of its sign; both lie on the CPU."""
    return operate(x, operations, STRENGTHS.amounts(operations, m, signs, *x.shape[-2:]))


class RandAugment(Coloured):
    """Do to each image n operations, drawn from 14, one after the other and all with one magnitude.

    Shear by up to 0.3, translation by up to 150/331 of a side, rotation by up to 30°, brightness, saturation, contrast and sharpness by a
    factor of up to 1 ± 0.9, posterize down to 4 bits, solarize from a threshold of 1 − m/30, autocontrast, equalize, and none; signs are
    drawn. Operations and magnitudes are those of torchvision's RandAugment with its 31 bins; what comes in from outside is black.

    Raises:
        Refusal: the data are no images with 1 or 3 channels and values in [0, 1].

    Source: Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", NeurIPS 2020.
    """

    n: int = declare.count("operations on each image", default=2, least=0, off=0)
    m: int = declare.count("magnitude of all operations", default=9, least=0, most=BINS)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw operations and signs for each image, and do them."""
        generator, x = module.generator(self.option, "cpu"), batch.x
        for _ in range(self.n):
            operations = torch.randint(len(OPERATIONS), (len(x),), generator=generator)
            signs = 1.0 - 2 * torch.randint(2, (len(x),), generator=generator)
            x = apply(x, operations, signs, self.m)
        return replace(batch, x=x)
