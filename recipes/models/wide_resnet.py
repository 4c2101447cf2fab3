"""A wide residual network for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from plugins.base import expect, expect_count, expect_probability
from recipes.models.base import expect_image


class Block(nn.Module):
    """s(x) + conv(dropout(relu(norm(conv(relu(norm(x))))))), where s is x itself, or a 1 × 1 convolution of relu(norm(x)) where shapes differ.

    Args:
        taken: channels of x.
        given: channels of what it returns.
        stride: of the first convolution and of the shortcut.
        dropout: probability that a value between the convolutions is dropped.
    """

    def __init__(self, taken: int, given: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(taken), nn.ReLU()
        self.conv1 = nn.Conv2d(taken, given, 3, stride, padding=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(given), nn.ReLU()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(given, given, 3, padding=1, bias=False)
        alike = taken == given and stride == 1
        self.shortcut = None if alike else nn.Conv2d(taken, given, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (samples, channels, height, width)."""
        activated = self.relu1(self.norm1(x))
        branch = self.conv2(self.dropout(self.relu2(self.norm2(self.conv1(activated)))))
        return (x if self.shortcut is None else self.shortcut(activated)) + branch


class WideResNet(nn.Module):
    """A 3 × 3 convolution to 16 channels, three stages of residual blocks, then norm, activation, mean and a linear layer.

    The stages have 16 width, 32 width and 64 width channels and (depth − 4) / 6 blocks each; the second and the third halve height and
    width. Norm and activation stand before each convolution.

    Source: Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016.

    Args:
        shape: (channels, height, width).
        outputs: size of the last layer.
        depth: layers, 6n + 4, ≥ 10.
        width: factor on the channels, ≥ 1.
        dropout: probability inside of the blocks, in [0, 1].

    Raises:
        RecipeError: samples that are no images, another depth.
    """

    def __init__(self, shape: Sequence[int], outputs: int, depth: int = 16, width: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        expect_image("wide_resnet", shape)
        expect_count("model.depth", depth, least=10)
        expect(depth % 6 == 4, "model.depth", "6n + 4, such as 10, 16, 22, 28 or 40", depth)
        expect_count("model.width", width)
        expect_probability("model.dropout", dropout)
        self.conv = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        taken, stages = 16, []
        for given, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            sizes = [(taken, stride), *[(given, 1)] * ((depth - 4) // 6 - 1)]
            stages.append(nn.Sequential(*(Block(size, given, step, dropout) for size, step in sizes)))
            taken = given
        self.stages = nn.Sequential(*stages)
        self.norm, self.relu, self.head = nn.BatchNorm2d(taken), nn.ReLU(), nn.Linear(taken, outputs)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (samples, outputs) of images (samples, channels, height, width)."""
        x = self.relu(self.norm(self.stages(self.conv(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
