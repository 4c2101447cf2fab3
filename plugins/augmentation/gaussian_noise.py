"""Gaussian noise on the pixels of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._images import ImageAugmentation
from plugins.base import Setting, Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Float


def add_noise(
    x: Float[Tensor, "samples channels height width"],
    noise: Float[Tensor, "samples channels height width"],
    std: float,
    valid: tuple[float, float] | None = None,
) -> Float[Tensor, "samples channels height width"]:
    """x + std · noise, cut off at the ends of the valid range."""
    noisy = x + std * noise.to(x.dtype)
    return noisy if valid is None else noisy.clamp(*valid)


class GaussianNoise(ImageAugmentation):
    """Add Gaussian noise to each pixel and channel.

    x ← x + std · n with n ~ N(0, 1) drawn for each number; images in [0, 1] are cut off there, those of other units are not.

    Raises:
        Refusal: the data are not images.

    Source: lecture A (data augmentation: distortion of high-frequency features).
    """

    stage = Stage.NOISE
    on_class_maps = True  # every pixel stays in its place

    std: float = declare.number("standard deviation, in the units of the images", default=0.05, least=0, off=0.0)

    def prepare(self, setting: Setting) -> None:
        """Look at the range of the images, once."""
        super().prepare(setting)
        self.valid = setting.valid_range

    def transform(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise of its own to each image."""
        noise = torch.randn(x.shape, device=x.device, generator=generator, dtype=torch.float32)
        return add_noise(x, noise, self.std, self.valid)
