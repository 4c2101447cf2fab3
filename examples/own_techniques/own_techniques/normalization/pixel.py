"""Features of one length at each position."""

from __future__ import annotations

from torch import Tensor, nn

from plugins.base import Plugin, Stage, declare
from plugins.normalization._place import place_norms


class PixelNorm(nn.Module):
    """y = x / √(mean over features of x² + eps), of (samples, features, *positions)."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Shape kept."""
        return x * (x.square().mean(1, keepdim=True) + self.eps).rsqrt()


class Pixel(Plugin):
    """Give the features at each position one length, without anything to learn.

    See :class:`PixelNorm`. It stands after each layer that a nonlinearity follows, in place of the norm layers of the model.

    Source: Karras et al., "Progressive Growing of GANs", ICLR 2018, section 4.2.
    """

    stage = Stage.NORMALIZATION

    eps: float = declare.number("added to the mean square", default=1e-8, above=0)

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layers in."""
        place_norms(model, self.setting.shape, lambda features, positions: PixelNorm(self.eps))
        return model
