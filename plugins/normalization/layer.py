"""Layer normalization (Ba, Kiros & Hinton, 2016)."""

from __future__ import annotations

import math

from torch import nn

from plugins.normalization._over import SampleStatistics


class LayerNormalization(SampleStatistics):
    """Give all that a layer returns for a sample zero mean and unit variance, then each feature a learned scale and shift.

    y = γ (x − μ) / √(σ² + 10⁻⁵) + β, with μ and σ² over features and positions of a sample; where features come last, as of the tokens of a
    transformer, over the features of each position. γ and β are of features.

    The norm follows each linear or convolution layer that a nonlinearity follows, and replaces the norm layers of the model, but for those
    that are layer norms.

    Raises:
        RecipeError: no place for a norm layer in the model; convolutions over places that a mask leaves out.

    Source: Ba, Kiros & Hinton, "Layer Normalization", 2016; Wu & He, "Group Normalization", ECCV 2018, figure 2 (of convolutions).
    """

    kept = (nn.LayerNorm,)

    def make(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, features, *places)."""
        if features * math.prod(places) < 2:
            return None
        return nn.GroupNorm(1, features) if places else nn.LayerNorm(features)

    def make_last(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, *places, features)."""
        return nn.LayerNorm(features) if features > 1 else None
