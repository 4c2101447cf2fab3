"""CutMix (Yun et al., 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._geometry import expect_maps_of_images
from plugins.augmentation._images import ImageAugmentation, boxes
from plugins.augmentation._mixing import Mixing, symmetric_beta
from plugins.base import Selection, declare

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def cutmix(
    x: Float[Tensor, "samples channels height width"],
    partners: Float[Tensor, "samples channels height width"],
    rows: Int[Tensor, " samples"],
    columns: Int[Tensor, " samples"],
    share: Float[Tensor, " samples"],
) -> tuple[Float[Tensor, "samples channels height width"], Float[Tensor, " samples"]]:
    """Paste from each partner the box centred at (rows, columns) that takes 1 − `share` of the area, all three (samples,).

    Images (samples, channels, H, W). Returns them and the exact share of pixels (samples,) that each has kept: sides are
    whole pixels, and the border cuts boxes off.
    """
    return paste(x, partners, box(x, rows, columns, share))


def box(
    x: Float[Tensor, "samples channels height width"],
    rows: Int[Tensor, " samples"],
    columns: Int[Tensor, " samples"],
    share: Float[Tensor, " samples"],
) -> Float[Tensor, "samples 1 height width"]:
    """1 where an image gets what is its partner's, in the box centred at (rows, columns), and 0 elsewhere."""
    height, width = x.shape[-2:]
    side = torch.sqrt(1 - share)
    return boxes(x, rows, columns, (height * side).long(), (width * side).long())


def paste(
    x: Float[Tensor, "samples channels height width"],
    partners: Float[Tensor, "samples channels height width"],
    mask: Float[Tensor, "samples 1 height width"],
) -> tuple[Float[Tensor, "samples channels height width"], Float[Tensor, " samples"]]:
    """Images with what is their partner's where `mask` is 1, and the share of pixels (samples,) that each has kept."""
    height, width = x.shape[-2:]
    return torch.lerp(x, partners, mask), 1 - mask.sum((1, 2, 3), dtype=torch.float32) / (height * width)


class CutMix(Mixing, ImageAugmentation):
    """Paste a box of another image into each image, and mix the targets by the share of pixels.

    x[:, i, j] ← x′[:, i, j] inside a box of ⌊H √(1−λ)⌋ × ⌊W √(1−λ)⌋ pixels with its centre anywhere, λ ~ Beta(α, α);
    t ← s t + (1 − s) t′ where s is the share of pixels kept. λ and the box are drawn for every sample; the partners
    (x′, t′) are a permutation of the batch. With another mixing technique beside it, each batch gets one of the two. Class maps are
    pasted as images are: each place has the label of where it is from.

    Raises:
        Refusal: the data are not images.

    Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers", ICCV 2019.
    """

    alpha: float = declare.number(
        "the share of the box is drawn from Beta(alpha, alpha)", default=1.0, least=0, off=0.0, more="1 is uniform."
    )

    def mixed(self, x: Tensor, partners: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images with a box of their partner, the share of pixels kept, and which."""
        share = symmetric_beta(self.alpha, len(x), x.device, generator)
        rows, columns = (torch.randint(n, (len(x),), device=x.device, generator=generator) for n in x.shape[-2:])
        mask = box(x, rows, columns, share)
        return *paste(x, partners, mask), mask.squeeze(1) == 0

    def check(self, selection: Selection) -> None:
        """Refuse class maps of another size than the images."""
        super().check(selection)
        expect_maps_of_images(self, selection.setting)
