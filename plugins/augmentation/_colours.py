"""Changes of colour, of each image by an amount of its own, as torchvision's functional does them one image at a time.

Images are (samples, channels, height, width) with 1 or 3 channels and values in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601


def _each(amounts: Tensor) -> Tensor:
    return amounts.view(-1, 1, 1, 1)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor · x + (1 − factor) · other, clamped to [0, 1]."""
    share = _each(factor)
    return (x * share + other * (1 - share)).clamp(0, 1)


def grey(x: Float[Tensor, "samples channels height width"]) -> Float[Tensor, "samples 1 height width"]:
    """The brightness of each pixel."""
    return x if x.shape[1] == 1 else sum(weight * x[:, at : at + 1] for at, weight in enumerate(LUMA))  # type: ignore[return-value]


def brightness(
    x: Float[Tensor, "samples channels height width"], factor: Float[Tensor, " samples"]
) -> Float[Tensor, "samples channels height width"]:
    """Away from black (factor > 1), or towards it."""
    return (x * _each(factor)).clamp(0, 1)


def saturation(
    x: Float[Tensor, "samples channels height width"], factor: Float[Tensor, " samples"]
) -> Float[Tensor, "samples channels height width"]:
    """Away from grey, or towards it; an image without colours stays as it is."""
    return x if x.shape[1] == 1 else _blend(x, grey(x), factor)


def contrast(
    x: Float[Tensor, "samples channels height width"], factor: Float[Tensor, " samples"]
) -> Float[Tensor, "samples channels height width"]:
    """Away from the mean brightness of the image, or towards it."""
    return _blend(x, grey(x).mean((1, 2, 3), keepdim=True), factor)


def sharpness(
    x: Float[Tensor, "samples channels height width"], factor: Float[Tensor, " samples"]
) -> Float[Tensor, "samples channels height width"]:
    """Away from a smoothed image, or towards it; the border, and an image of two pixels or less, stay as they are."""
    if min(x.shape[-2:]) <= 2:
        return x
    rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]  # no convolution, which autocast would round
    share, out = _each(factor), x.clone()
    inner = x[:, :, 1:-1, 1:-1]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner) / 13
    out[:, :, 1:-1, 1:-1] = inner + (1 - share) * (smooth - inner)
    return out.clamp(0, 1)


def posterize(
    x: Float[Tensor, "samples channels height width"], bits: Int[Tensor, " samples"]
) -> Float[Tensor, "samples channels height width"]:
    """Values rounded down to one of 2^bits."""
    levels = _each(2.0**bits).to(x)
    return (x * levels).floor().minimum(levels - 1) / levels


def solarize(
    x: Float[Tensor, "samples channels height width"], threshold: Float[Tensor, " samples"]
) -> Float[Tensor, "samples channels height width"]:
    """1 − x where x reaches the threshold."""
    return torch.where(x >= _each(threshold), 1 - x, x)


def autocontrast(x: Float[Tensor, "samples channels height width"]) -> Float[Tensor, "samples channels height width"]:
    """Each channel stretched onto [0, 1]; one of a single value stays as it is."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = low == high
    return ((x - low.masked_fill(flat, 0)) / (high - low).masked_fill(flat, 1)).clamp(0, 1)


def equalize(x: Float[Tensor, "samples channels height width"]) -> Float[Tensor, "samples channels height width"]:
    """All of 256 values about equally often in each channel, as PIL does it."""
    values = (x.float().clamp(0, 1) * (256 - 1e-3)).long().flatten(2)
    counts = x.new_zeros(*x.shape[:2], 256, dtype=torch.long).scatter_add_(2, values, torch.ones_like(values))
    below = counts.cumsum(2)
    largest = counts.gather(2, values.amax(2, keepdim=True))  # how often the largest value of the image stands
    step = (values.shape[2] - largest).div(255, rounding_mode="floor")
    table = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp(0, 255)
    table = F.pad(table[..., :-1], (1, 0))  # of the values below each
    return torch.where(step == 0, values, table.gather(2, values)).view_as(x).to(x.dtype) / 255


def invert(x: Float[Tensor, "samples channels height width"]) -> Float[Tensor, "samples channels height width"]:
    """1 − x."""
    return 1 - x


def grayscale(x: Float[Tensor, "samples channels height width"]) -> Float[Tensor, "samples channels height width"]:
    """The brightness in each channel; an image without colours stays as it is."""
    return grey(x).expand_as(x)


def hue(
    x: Float[Tensor, "samples channels height width"], shift: Float[Tensor, " samples"]
) -> Float[Tensor, "samples channels height width"]:
    """Colours turned on the circle of hues by a share of it; an image without colours stays as it is.

    With v the largest of the channels, c the largest − the smallest, and h ∈ [0, 6) the place on the circle, a channel becomes
    v − c · max(0, min(1, k, 4 − k)), k = (h + 6 · shift + n) mod 6, with n = 5, 3, 1 for red, green, blue.
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    most = x.amax(1)
    spread = most - x.amin(1)
    safe = spread.masked_fill(spread == 0, 1)
    of_blue = torch.where(most == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    place = torch.where(most == red, (green - blue) / safe, of_blue) + 6 * shift.view(-1, 1, 1)
    turned = (place.unsqueeze(1) + torch.arange(5, 0, -2, device=x.device).view(1, 3, 1, 1)).remainder(6)
    return most.unsqueeze(1) - spread.unsqueeze(1) * torch.minimum(turned, 4 - turned).clamp(0, 1)


def kernel_size(shape: Sequence[int], sigma: float) -> int:
    """The odd number of pixels that holds three deviations to either side, or what can be mirrored at the border of images of a shape."""
    return 2 * min(math.ceil(3 * sigma), min(shape[-2:]) - 1) + 1


def blur(
    x: Float[Tensor, "samples channels height width"], sigma: Float[Tensor, " samples"], size: int
) -> Float[Tensor, "samples channels height width"]:
    """Means of size × size pixels weighted by exp(−d² / 2σ²), d the distance; images are mirrored at their border."""
    distance = torch.arange(size, device=x.device, dtype=sigma.dtype) - size // 2
    weights = (-0.5 * (distance / sigma.unsqueeze(1)).square()).softmax(1).to(x.dtype).view(-1, size, 1, 1, 1)
    out = F.pad(x, (size // 2,) * 4, mode="reflect")
    for dim in (2, 3):  # no convolution, which autocast would round
        parts = [out.narrow(dim, start, x.shape[dim]) for start in range(size)]
        out = parts[0] * weights[:, 0]
        for start in range(1, size):
            out.addcmul_(parts[start], weights[:, start])
    return out
