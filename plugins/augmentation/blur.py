"""Random blurring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from plugins.augmentation._colours import blur, kernel_size
from plugins.augmentation._images import ImageAugmentation
from plugins.augmentation._operations import by_kind
from plugins.base import Batch, Module, Refusal, Selection, Stage, declare


class GaussianBlur(ImageAugmentation):
    """Blur each image with probability p, by a Gaussian whose deviation is drawn for it.

    x'[c, i, j] = Σ w(a) w(b) x[c, i + a, j + b] with w(a) ∝ exp(−a² / 2σ²), σ ~ U[sigma] and a, b from −⌊k/2⌋ to ⌊k/2⌋; beyond the border
    the image is mirrored. As torchvision's GaussianBlur.

    Raises:
        Refusal: the data are no images, or too small ones for the kernel_size; an even one.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
    """

    stage = Stage.COLOUR
    on_class_maps = True

    p: float = declare.share("probability that an image is blurred", default=0.5, off=0.0)
    sigma: Sequence[float] = declare.interval("smallest and largest deviation in pixels", default=[0.1, 2.0], above=0)
    kernel_size: int | None = declare.count(
        "pixels in a row of the kernel, an odd number", default=None, null="what holds three of the largest deviation"
    )

    def check(self, selection: Selection) -> None:
        """Refuse a kernel without a middle, or one that images are too small for."""
        super().check(selection)
        size, side = self.kernel_size, min(selection.setting.shape[1:])
        if size is not None and size % 2 == 0:
            raise Refusal(
                f"{self.state_key} needs a kernel with a pixel in the middle: type augmentation.blur.kernel_size={size + 1}"
            )
        if size is not None and size // 2 >= side:
            raise Refusal(
                f"{self.state_key} mirrors {size // 2} pixels at the border of images with {side}: type augmentation.blur.kernel_size="
                f"{2 * side - 1} or less, or leave it out"
            )

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw which images are blurred and how far, and blur them."""
        generator, samples = module.generator(self.option, "cpu"), len(batch)
        chosen = torch.rand(samples, generator=generator, dtype=torch.float32) < self.p
        low, high = self.sigma
        sigma = (low + (high - low) * torch.rand(samples, generator=generator, dtype=torch.float32)).to(
            batch.device, non_blocking=True
        )

        def blurred(images: Tensor, which: Tensor) -> Tensor:
            widest = kernel_size(images.shape, high) if self.kernel_size is None else self.kernel_size
            size = min(widest, 2 * min(images.shape[-2:]) - 1)  # images may have been cropped since `check`
            return blur(images, sigma.index_select(0, which), size)

        return replace(batch, x=by_kind(batch.x, chosen.long(), [None, blurred]))
