"""Windows of a drawn area and shape, and images that are stretched from one window onto another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._images import between

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

TRIES = 10  # as torchvision has it


def draw_windows(
    samples: int,
    size: tuple[int, int],
    area: Sequence[float],
    ratio: Sequence[float],
    device: torch.device,
    generator: torch.Generator,
) -> tuple[Int[Tensor, " {samples}"], Int[Tensor, " {samples}"], Bool[Tensor, " {samples}"]]:
    """Heights and widths of windows for images of a size, and for which a window was found; the first of `TRIES` that fits.

    The share of the image's area is uniform in `area`, the logarithm of width / height in that of `ratio`; sides are rounded to whole pixels.
    """
    height, width = size
    share = between(area, TRIES * samples, device, generator) * (height * width)
    shape = between([math.log(end) for end in ratio], TRIES * samples, device, generator).exp()
    heights, widths = ((part.sqrt().round().long().view(TRIES, samples)) for part in (share / shape, share * shape))
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = fits.int().argmax(0, keepdim=True)
    return heights.gather(0, first).squeeze(0), widths.gather(0, first).squeeze(0), fits.any(0)


def stretch(
    length: int,
    first: Int[Tensor, " samples"],
    extent: Int[Tensor, " samples"],
    onto: Int[Tensor, " samples"],
    target: Int[Tensor, " samples"],
) -> Float[Tensor, "samples {length} {length}"]:
    """How much of each pixel of an axis is in each pixel of its new one, where `extent` pixels from `first` on become `target` from `onto` on.

    Between two pixels by how near they are; where a window gets smaller a mean over as many pixels as become one, so that nothing is
    skipped. Rows are the new pixels and add up to 1, or to 0 outside of the window.
    """
    pixel = torch.arange(length, device=first.device)
    new, old = pixel.view(1, -1, 1), pixel.view(1, 1, -1)
    first, extent, onto, target = (end.view(-1, 1, 1) for end in (first, extent, onto, target))
    scale = extent.to(torch.float32) / target.clamp(min=1)
    centre = first + ((new - onto).to(torch.float32) + 0.5) * scale
    weight = (1 - (old.to(torch.float32) + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((old >= first) & (old < first + extent)) * ((new >= onto) & (new < onto + target))
    return weight / weight.sum(2, keepdim=True).clamp(min=1e-6)


def stretched(
    x: Float[Tensor, "samples channels H W"],
    rows: Float[Tensor, "samples height H"],
    columns: Float[Tensor, "samples width W"],
) -> Float[Tensor, "samples channels height width"]:
    """out = rows · x · columnsᵀ of each channel, in float32 at least."""
    kind = torch.promote_types(x.dtype, torch.float32)
    with without_autocast(x.device):
        return (rows.to(kind).unsqueeze(1) @ x.to(kind) @ columns.to(kind).mT.unsqueeze(1)).to(x.dtype)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Products of matrices are computed in the precision of what is multiplied."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()
