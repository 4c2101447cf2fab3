"""A multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from recipes.models.base import activation_class, expect_sizes


class MLP(nn.Sequential):
    """Linear layers with an activation between them, on the flattened input.

    Args:
        shape: shape of a sample.
        outputs: size of the last layer.
        hidden: sizes of the hidden layers.
        activation: relu | tanh | sigmoid | softplus | gelu | silu | leaky_relu | elu.
    """

    def __init__(
        self, shape: Sequence[int], outputs: int, hidden: Sequence[int] = (128, 128), activation: str = "relu"
    ) -> None:
        expect_sizes("model.hidden", hidden)
        act = activation_class(activation)
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(shape)
        for size in hidden:
            layers += [nn.Linear(width, size), act()]
            width = size
        super().__init__(*layers, nn.Linear(width, outputs))
