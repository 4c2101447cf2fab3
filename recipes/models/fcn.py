"""A small fully convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from plugins.base import expect
from recipes.models.base import activation_class, expect_image, expect_sizes


class FCN(nn.Sequential):
    """3 × 3 convolutions that keep height and width, each with an activation, then a 1 × 1 convolution to the classes.

    Outputs (samples, outputs, height, width), for class maps; images may have any size.

    Source: Long, Shelhamer & Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015.

    Args:
        shape: (channels, height, width).
        outputs: classes.
        channels: channels of the convolutions.
        activation: relu | tanh | sigmoid | softplus | gelu | silu | leaky_relu | elu.
    """

    def __init__(
        self, shape: Sequence[int], outputs: int, channels: Sequence[int] = (32, 64), activation: str = "relu"
    ) -> None:
        expect_image("fcn", shape)
        expect_sizes("model.channels", channels)
        expect(len(channels) > 0, "model.channels", "at least one number", list(channels))
        act = activation_class(activation)
        layers: list[nn.Module] = []
        depth = shape[0]
        for size in channels:
            layers += [nn.Conv2d(depth, size, 3, padding=1), act()]
            depth = size
        super().__init__(*layers, nn.Conv2d(depth, outputs, 1))
