"""ResizeMix (Qin et al., 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._images import ImageAugmentation, below, between, boxes
from plugins.augmentation._mixing import Mixing
from plugins.augmentation._windows import stretch, stretched
from plugins.base import declare

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def resizemix(
    x: Float[Tensor, "samples channels H W"],
    partners: Float[Tensor, "samples channels H W"],
    top: Int[Tensor, " samples"],
    left: Int[Tensor, " samples"],
    heights: Int[Tensor, " samples"],
    widths: Int[Tensor, " samples"],
) -> tuple[Float[Tensor, "samples channels H W"], Float[Tensor, " samples"]]:
    """Each partner, shrunk to heights × widths pixels, pasted with its corner at (top, left), all four (samples,).

    Returns the images, and the exact share of pixels (samples,) that each has kept of itself.
    """
    height, width = x.shape[-2:]
    start = torch.zeros_like(top)
    shrunk = stretched(
        partners,
        stretch(height, start, start + height, top, heights),
        stretch(width, start, start + width, left, widths),
    )
    mask = boxes(x, top + heights // 2, left + widths // 2, heights, widths)
    return torch.lerp(x, shrunk, mask), 1 - (heights * widths).to(torch.float32) / (height * width)


class ResizeMix(Mixing, ImageAugmentation):
    """Paste another image, shrunk, into each image, and mix the targets by the share of pixels.

    x′ is shrunk to ⌊τ H + ½⌋ × ⌊τ W + ½⌋ pixels, τ uniform in `scale`, and pasted anywhere; t ← s t + (1 − s) t′ where s is the share of pixels
    kept. τ and the place are drawn for every sample; the partners (x′, t′) are a permutation of the batch. With another mixing technique beside it, each batch
    gets one of them.

    Raises:
        Refusal: the data are not images, or class maps.

    Source: Qin et al., "ResizeMix: Mixing Data with Preserved Object Information and True Labels", 2020.
    """

    on_class_maps = False

    scale: list[float] = declare.interval(
        "side of the pasted image as a share of the whole, from and to", default=[0.1, 0.8], least=0, most=1, off=[0.0, 0.0]
    )

    def mixed(self, x: Tensor, partners: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, None]:
        """Images with their partner in them, and the share of pixels kept."""
        height, width = x.shape[-2:]
        side = between(self.scale, len(x), x.device, generator)
        heights, widths = ((side * length + 0.5).long() for length in (height, width))
        top, left = below(height - heights + 1, generator), below(width - widths + 1, generator)
        return *resizemix(x, partners, top, left, heights, widths), None
