"""ResNet-18 for small images."""

from __future__ import annotations

from typing import ClassVar

from recipes.models.small_stem import SmallStem


class ResNet18(SmallStem):
    """Torchvision's ResNet-18 with the stem for small images: a 3 × 3 convolution of stride 1, no max pooling.

    Residual blocks h + f(h) of two convolutions each, 8 of them, in four stages, of which all but the first halve height and width.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (section 4.2 for the stem).

    Raises:
        RecipeError: samples that are no images.
    """

    network: ClassVar[str] = "resnet18"
