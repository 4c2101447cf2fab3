"""What residual networks for small images share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn
from torchvision.models import get_model

from recipes.models.base import expect_image


class SmallStem(nn.Module):
    """A residual network of torchvision with the stem for small images: a 3 × 3 convolution of stride 1, no max pooling.

    `network` is its name, which is the option's, too.
    """

    network: ClassVar[str]

    def __new__(cls, shape: Sequence[int], outputs: int) -> Any:
        """The network itself: there is nothing to wrap.

        Args:
            shape: (channels, height, width).
            outputs: size of the last layer.

        Raises:
            RecipeError: samples that are no images.
        """
        expect_image(cls.network, shape)
        model: Any = get_model(cls.network, num_classes=outputs)
        model.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
        return model
