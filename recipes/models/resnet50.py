"""ResNet-50 for small images."""

from __future__ import annotations

from typing import ClassVar

from recipes.models.small_stem import SmallStem


class ResNet50(SmallStem):
    """Torchvision's ResNet-50 with the stem for small images: a 3 × 3 convolution of stride 1, no max pooling.

    Residual blocks h + f(h) of three convolutions each, 16 of them, which are narrow inside, in four stages, of which all but the first halve height and width.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (section 4.2 for the stem).

    Raises:
        RecipeError: samples that are no images.
    """

    network: ClassVar[str] = "resnet50"
