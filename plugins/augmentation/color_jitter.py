"""Random changes of brightness, contrast, saturation and hue."""

from __future__ import annotations

from dataclasses import replace

import torch

from plugins.augmentation._images import Coloured
from plugins.augmentation._operations import OPERATIONS, operate
from plugins.base import Batch, Module, declare

JITTERED = ("brightness", "contrast", "saturation", "hue")


class ColorJitter(Coloured):
    """Change brightness, contrast, saturation and hue of each image, in an order that is drawn for it.

    The first three are multiplied by factors ~ U[max(0, 1 − s), 1 + s], hues are turned by a share ~ U[−s, s] of their circle, with the
    strength s of each; one with s = 0 is left out. Each result is cut to [0, 1]. The operations are those of torchvision's ColorJitter;
    images of one channel have no saturation and no hue.

    Raises:
        Refusal: the data are no images with 1 or 3 channels and values in [0, 1].

    Source: Howard, "Some Improvements on Deep Convolutional Neural Network Based Image Classification", 2013; strengths as in He et al.,
    "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020.
    """

    on_class_maps = True

    brightness: float = declare.number("largest change of the factor of brightness", default=0.4, least=0, off=0.0)
    contrast: float = declare.number("largest change of the factor of contrast", default=0.4, least=0, off=0.0)
    saturation: float = declare.number("largest change of the factor of saturation", default=0.4, least=0, off=0.0)
    hue: float = declare.number("largest turn of the hue, as a share of the circle", default=0.1, least=0, most=0.5, off=0.0)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw amounts and their order for each image, and change one after the other."""
        generator, x = module.generator(self.option, "cpu"), batch.x
        strengths = [(name, strength) for name in JITTERED if (strength := float(getattr(self, name)))]
        lowest = torch.tensor([max(-1.0, -strength) for _, strength in strengths], dtype=torch.float32)
        highest = torch.tensor([strength for _, strength in strengths], dtype=torch.float32)
        amounts = lowest + (highest - lowest) * torch.rand(len(x), len(strengths), generator=generator, dtype=torch.float32)
        numbers = torch.tensor([OPERATIONS.index(name) for name, _ in strengths])
        order = torch.rand(len(x), len(strengths), generator=generator, dtype=torch.float32).argsort(1)
        for place in order.unbind(1):
            x = operate(x, numbers[place], amounts.gather(1, place.unsqueeze(1)).squeeze(1))
        return replace(batch, x=x)
