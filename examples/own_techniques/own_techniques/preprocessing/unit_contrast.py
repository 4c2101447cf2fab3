"""Samples of one contrast."""

from __future__ import annotations

from torch import Tensor, nn

from plugins.base import Plugin, Stage, declare


class Contrast(nn.Module):
    """A model that sees (x − m) / max(s, eps), with m and s the mean and deviation of each sample's values."""

    def __init__(self, model: nn.Module, eps: float) -> None:
        super().__init__()
        self.model, self.eps = model, eps

    def forward(self, x: Tensor) -> Tensor:
        """The model's outputs for raw inputs."""
        flat = x.flatten(1)
        centered = flat - flat.mean(1, keepdim=True)
        return self.model((centered / centered.square().mean(1, keepdim=True).sqrt().clamp_min(self.eps)).view_as(x))


class UnitContrast(Plugin):
    """Give each sample mean 0 and deviation 1 over its own values, so that light and contrast tell nothing.

    See :class:`Contrast`. Nothing is learned of the training split.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 12.2.1.1 (global contrast normalization).
    """

    stage = Stage.PREPROCESSING

    eps: float = declare.number("least deviation that is divided by", default=1e-3, above=0)

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layer in front."""
        return Contrast(model, self.eps)
