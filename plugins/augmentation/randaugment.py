"""RandAugment (Cubuk et al., 2020)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation import _colours as colours
from plugins.augmentation._images import ImageAugmentation
from plugins.augmentation._warping import warp
from plugins.base import Batch, Module, Refusal, Selection, Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Float, Int

BINS = 30  # the largest magnitude
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDING = ("brightness", "saturation", "contrast", "sharpness")
OPERATIONS = ("identity", *GEOMETRIC, *BLENDING, "posterize", "solarize", "autocontrast", "equalize")


def matrices(
    operations: Int[Tensor, " samples"], share: float, signs: Float[Tensor, " samples"], height: int, width: int
) -> Float[Tensor, "samples 2 3"]:
    """For each image where its pixels come from, by one of the operations `GEOMETRIC`, numbered from 0; `share` of the strongest."""
    matrix = torch.eye(2, 3, device=signs.device).repeat(len(signs), 1, 1)
    angle = torch.deg2rad(torch.as_tensor(30 * share)) * signs
    shear, right, down = 0.3 * share * signs, int(150 / 331 * width * share) * signs, int(150 / 331 * height * share) * signs
    is_x, is_y, moves_x, moves_y, turns = (operations == number for number in range(len(GEOMETRIC)))
    # a shear leaves the first row, or column, where it is
    matrix[:, 0, 1], matrix[:, 0, 2] = is_x * shear, is_x * shear * height / 2 - moves_x * right
    matrix[:, 1, 0], matrix[:, 1, 2] = is_y * shear, is_y * shear * width / 2 - moves_y * down
    turned = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    matrix[:, :, :2] = torch.where(turns.view(-1, 1, 1), turned, matrix[:, :, :2])
    return matrix


def apply(
    x: Float[Tensor, "samples channels height width"],
    operations: Int[Tensor, " samples"],
    signs: Float[Tensor, " samples"],
    m: int,
) -> Float[Tensor, "samples channels height width"]:
    """Do to each image one of `OPERATIONS`, by number, with magnitude m in the direction of its sign.

    `operations` and `signs` lie on the CPU, so that images of one kind are put together without waiting for a GPU.
    """
    out, share, geometric = x.clone(), m / BINS, range(1, 1 + len(GEOMETRIC))
    for number, name in enumerate(OPERATIONS):
        chosen = operations == number
        if number in geometric:  # all at once, with the first of them
            chosen = (operations >= 1) & (operations < 1 + len(GEOMETRIC)) & (number == 1)
        if name == "identity" or not chosen.any():
            continue
        which = chosen.nonzero().squeeze(1)
        index, sign = which.to(x.device, non_blocking=True), signs[which].to(x.device, non_blocking=True)
        images = x.index_select(0, index)
        if number in geometric:
            matrix = matrices((operations[which] - 1).to(x.device, non_blocking=True), share, sign, *x.shape[-2:])
            changed = warp(images, matrix.to(x.dtype))
        elif name in BLENDING:
            changed = getattr(colours, name)(images, (1 + 0.9 * share * sign).to(x.dtype))
        elif name == "posterize":
            changed = colours.posterize(images, torch.full_like(index, round(8 - 4 * share)))
        elif name == "solarize":
            changed = colours.solarize(images, torch.full_like(sign, 1 - share))
        else:
            changed = getattr(colours, name)(images)
        out.index_copy_(0, index, changed)
    return out


class RandAugment(ImageAugmentation):
    """Do to each image n operations, drawn from 14, one after the other and all with one magnitude.

    Shear by up to 0.3, translation by up to 150/331 of a side, rotation by up to 30°, brightness, saturation, contrast and sharpness by a
    factor of up to 1 ± 0.9, posterize down to 4 bits, solarize from a threshold of 1 − m/30, autocontrast, equalize, and none; signs are
    drawn. Operations and magnitudes are those of torchvision's RandAugment with its 31 bins; what comes in from outside is black.

    Raises:
        Refusal: the data are no images with 1 or 3 channels and values in [0, 1].

    Source: Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", NeurIPS 2020.
    """

    stage = Stage.COLOUR

    n: int = declare.count("operations on each image", default=2, least=0, off=0)
    m: int = declare.count("magnitude of all operations", default=9, least=0, most=BINS)

    def check(self, selection: Selection) -> None:
        """Refuse images that have no colours, or of other units."""
        super().check(selection)
        setting = selection.setting
        if setting.shape[0] not in (1, 3):
            raise Refusal(f"{self.state_key} needs images with 1 or 3 channels, these have {setting.shape[0]}: leave it out")
        if setting.extremes and not setting.valid_range:
            low, high = setting.extremes
            raise Refusal(
                f"{self.state_key} needs images from 0 to 1, and these reach from {low:.4g} to {high:.4g}: scale them, or leave it out"
            )

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw operations and signs for each image, and do them."""
        generator, x = module.generator(self.option, "cpu"), batch.x
        for _ in range(self.n):
            operations = torch.randint(len(OPERATIONS), (len(x),), generator=generator)
            signs = 1.0 - 2 * torch.randint(2, (len(x),), generator=generator)
            x = apply(x, operations, signs, self.m)
        return replace(batch, x=x)
