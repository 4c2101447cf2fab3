"""TrivialAugment (Müller & Hutter, 2021)."""

from __future__ import annotations

from dataclasses import replace

import torch

from plugins.augmentation._images import Coloured
from plugins.augmentation._operations import Strengths, operate
from plugins.augmentation.randaugment import OPERATIONS
from plugins.base import Batch, Module

LEVELS = 31
STRENGTHS = Strengths(LEVELS, shear=0.99, pixels=32.0, degrees=135.0, blend=0.99, bits=(8, 2))


class TrivialAugment(Coloured):
    """Do to each image one operation, drawn from 14, as strong as is drawn for it.

    Shear by up to 0.99, translation by up to 32 pixels, rotation by up to 135°, brightness, saturation, contrast and sharpness by a factor of
    up to 1 ± 0.99, posterize down to 2 bits, solarize from a threshold of up to 0, autocontrast, equalize, and none; of 31 strengths all are
    equally likely, and so are signs. The operations and strengths are those of torchvision's TrivialAugmentWide; what comes in from outside
    is black.

    Raises:
        Refusal: the data are no images with 1 or 3 channels and values in [0, 1].

    Source: Müller & Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021.
    """

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw an operation, a strength and a sign for each image, and do it."""
        generator, samples = module.generator(self.option, "cpu"), (len(batch),)
        operations = torch.randint(len(OPERATIONS), samples, generator=generator)
        level = torch.randint(LEVELS, samples, generator=generator)
        signs = 1.0 - 2 * torch.randint(2, samples, generator=generator)
        return replace(batch, x=operate(batch.x, operations, STRENGTHS.amounts(operations, level, signs, *batch.x.shape[-2:])))
