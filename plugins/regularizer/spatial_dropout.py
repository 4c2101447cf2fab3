"""Spatial dropout (Tompson et al., 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from plugins.base import Plugin, Stage, declare
from plugins.regularizer._maps import map_sites
from plugins.sites import attach

if TYPE_CHECKING:
    from jaxtyping import Float


def spatial_dropout(x: Float[Tensor, "samples channels *places"], p: float) -> Float[Tensor, "samples channels *places"]:
    """Zero each channel of each sample with probability p, and divide the others by 1 − p. Shape kept."""
    if p == 0:
        return x
    mask = x.new_empty(*x.shape[:2], *[1] * (x.ndim - 2)).bernoulli_(1 - p)
    return x * (mask.div_(1 - p) if p < 1 else mask)


class SpatialDropoutLayer(nn.modules.dropout._DropoutNd):
    """The layer that :class:`SpatialDropout` puts after an activation; what has no places, or a single one, it leaves as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels in training."""
        return spatial_dropout(x, self.p) if self.training and has_places(x.shape) else x


def has_places(shape: tuple[int, ...]) -> bool:
    """Whether a tensor (samples, channels, *places) has several places a channel."""
    return len(shape) > 2 and any(size > 1 for size in shape[2:])


class SpatialDropout(Plugin):
    """Drop whole channels of feature maps at random during training: within one neighbouring places tell the same.

    h_c ← m_c h_c / (1 − p) with m_c ~ Bernoulli(1 − p) for each sample and channel c in training, and h at test.

    It acts on hidden activations of convolutions, over images, sequences or points, that have more than one place a channel.

    Shapes:
        activations: (samples, channels, *places).

    Raises:
        RecipeError: no such activation in the model, or one that is made by a function and returned by no module.

    Source: Tompson et al., "Efficient Object Localization Using Convolutional Networks", CVPR 2015; lecture B.
    """

    stage = Stage.LAYERS

    p: float = declare.share("probability that a channel is dropped", default=0.1, off=0.0)

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put a layer after each activation of a convolution."""
        for _, host in map_sites(model, self.setting.shape, self.state_key, has_places):
            attach(host, self.option, SpatialDropoutLayer(self.p))
        return model
