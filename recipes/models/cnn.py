"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from plugins.base import RecipeError, expect_count
from recipes.models.base import activation_class, expect_image, expect_sizes


class CNN(nn.Sequential):
    """Blocks of 3 × 3 convolution, activation and 2 × 2 max pooling, then one hidden layer and the output layer.

    Args:
        shape: (channels, height, width); each block halves height and width.
        outputs: size of the last layer.
        channels: channels of the blocks.
        hidden: size of the hidden layer.
        activation: relu | tanh | sigmoid | softplus | gelu | silu | leaky_relu | elu.
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        channels: Sequence[int] = (32, 64),
        hidden: int = 128,
        activation: str = "relu",
    ) -> None:
        expect_image("cnn", shape)
        expect_sizes("model.channels", channels)
        expect_count("model.hidden", hidden)
        act = activation_class(activation)
        depth, height, width = shape
        layers: list[nn.Module] = []
        for size in channels:
            layers += [nn.Conv2d(depth, size, 3, padding=1), act(), nn.MaxPool2d(2)]
            depth, height, width = size, height // 2, width // 2
        if height < 1 or width < 1:
            raise RecipeError(
                f"images of {shape[1]} × {shape[2]} are too small for model=cnn with {len(channels)} blocks, "
                f"each of which halves them: use fewer, such as model.channels=[32], or model=mlp"
            )
        layers += [nn.Flatten(), nn.Linear(depth * height * width, hidden), act(), nn.Linear(hidden, outputs)]
        super().__init__(*layers)
