"""ResNet-18 for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision.models import resnet18

from recipes.models.base import expect_image


class ResNet18(nn.Module):
    """Torchvision's ResNet-18 with the stem for small images: a 3 × 3 convolution of stride 1, no max pooling."""

    def __new__(cls, shape: Sequence[int], outputs: int) -> Any:
        """The network itself: there is nothing to wrap."""
        expect_image("resnet18", shape)
        model = resnet18(num_classes=outputs)
        model.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
        return model
