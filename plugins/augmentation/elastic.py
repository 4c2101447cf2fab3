"""Elastic distortions (Simard, Steinkraus & Platt, 2003)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._geometry import Move, Padded
from plugins.augmentation._warping import sample
from plugins.augmentation._windows import stretched
from plugins.base import Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Float

CUT = 4  # deviations at which the Gaussian ends


def smoothing(length: int, sigma: float, device: torch.device) -> Float[Tensor, "{length} {length}"]:
    """The matrix that convolves an axis with a Gaussian of deviation sigma in pixels, zeros being outside."""
    position = torch.arange(length, device=device, dtype=torch.float32)
    distance = (position.unsqueeze(1) - position).abs()
    radius = int(CUT * sigma + 0.5)
    total = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=device, dtype=torch.float32) / sigma) ** 2).sum()
    return torch.exp(-0.5 * (distance / sigma) ** 2) * (distance <= radius) / total


def displacements(
    noise: Float[Tensor, "samples 2 height width"], alpha: float, sigma: float
) -> Float[Tensor, "samples 2 height width"]:
    """α · Gaussian(σ) ∗ noise: how far from each pixel its value is looked up, in pixels along columns and rows."""
    rows, columns = (smoothing(side, sigma, noise.device).expand(len(noise), -1, -1) for side in noise.shape[-2:])
    return alpha * stretched(noise, rows, columns)


class Elastic(Padded):
    """Distort each image as if it were drawn on rubber, and class maps with it.

    x'[c, i, j] = x[c, i + v[i, j], j + u[i, j]] with u, v = α · (G(σ) ∗ noise) in pixels, where the noise is uniform in [−1, 1] at each pixel and
    G(σ) a Gaussian that ends at 4 σ, zeros being outside of the image; the sums are not normalized further. Between pixels the mean of the four around, by how near
    they are, in class maps the label of the nearest one. What comes in is filled, in class maps with the label that the loss ignores.

    Raises:
        Refusal: the data are not images, or images outside of [0, 1] without a fill; class maps, and a loss that ignores no label.

    Source: Simard, Steinkraus & Platt, "Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis", ICDAR 2003; lecture B.
    """

    stage = Stage.GEOMETRY

    alpha: float = declare.number(
        "how far pixels move, a factor on the smoothed noise",
        default=34.0,
        unit="pixels",
        least=0,
        off=0.0,
        more="torchvision's alpha is twice as large for the same distortion.",
    )
    sigma: float = declare.number(
        "deviation of the Gaussian that smooths the noise",
        default=4.0,
        unit="pixels",
        above=0,
        most=1000,
        more="The larger, the stiffer.",
    )

    def draw(self, x: Tensor, generator: torch.Generator) -> Move:
        """Distort each image by noise of its own."""
        height, width = x.shape[-2:]
        noise = 2 * torch.rand(len(x), 2, height, width, device=x.device, generator=generator, dtype=torch.float32) - 1
        right, down = displacements(noise, self.alpha, self.sigma).unbind(1)
        columns = torch.arange(width, device=x.device) + right
        rows = torch.arange(height, device=x.device).unsqueeze(1) + down
        return lambda images, fill: sample(images, columns, rows, fill)
