"""Instance normalization (Ulyanov et al., 2016)."""

from __future__ import annotations

import math

from torch import nn

from plugins.normalization._over import SampleStatistics


class InstanceNormalization(SampleStatistics):
    """Give each feature of a sample zero mean and unit variance over its positions, then a learned scale and shift.

    y = γ (x − μ) / √(σ² + 10⁻⁵) + β, with μ and σ² over the positions of one feature of one sample.

    The norm follows each convolution layer that a nonlinearity follows, and each linear layer on many positions, and replaces the norm layers
    of the model. Where a feature has one position only there is none: a number is its own mean.

    Raises:
        RecipeError: no place for a norm layer in the model; places that a mask leaves out.

    Source: Ulyanov, Vedaldi & Lempitsky, "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016.
    """

    def make(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, features, *places)."""
        if math.prod(places) < 2:
            return None
        return {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[len(places)](features, affine=True)
