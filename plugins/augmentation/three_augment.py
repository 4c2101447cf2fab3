"""3-Augment (Touvron et al., 2022)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from plugins.augmentation import _colours as colours
from plugins.augmentation._images import Coloured
from plugins.augmentation._operations import by_kind
from plugins.base import Batch, Module

SIGMA = (0.1, 2.0)


class ThreeAugment(Coloured):
    """Take the colours out of each image, or solarize it, or blur it; one of the three, drawn for it.

    Brightness in each channel; x ← 1 − x where x ≥ ½; a Gaussian of deviation σ ~ U[0.1, 2] pixels. The paper has
    +augmentation=color_jitter (0.3 each, no hue), a crop and horizontal flips beside it.

    Raises:
        Refusal: the data are no images with 1 or 3 channels and values in [0, 1].

    Source: Touvron, Cord & Jégou, "DeiT III: Revenge of the ViT", ECCV 2022.
    """

    on_class_maps = True

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw which of the three each image gets, and how far it is blurred."""
        generator, samples = module.generator(self.option, "cpu"), len(batch)
        kinds = torch.randint(3, (samples,), generator=generator)
        low, high = SIGMA
        sigma = (low + (high - low) * torch.rand(samples, generator=generator, dtype=torch.float32)).to(
            batch.device, non_blocking=True
        )

        def solarized(images: Tensor, which: Tensor) -> Tensor:
            return colours.solarize(images, images.new_full((len(images),), 0.5))

        def blurred(images: Tensor, which: Tensor) -> Tensor:
            return colours.blur(images, sigma.index_select(0, which), colours.kernel_size(images.shape, high))

        changes = [lambda images, which: colours.grayscale(images), solarized, blurred]
        return replace(batch, x=by_kind(batch.x, kinds, changes))
