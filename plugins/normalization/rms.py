"""Root mean square normalization (Zhang & Sennrich, 2019)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from plugins.normalization._over import SampleStatistics

EPS = 1e-6


class FeatureMapRMSNorm(nn.RMSNorm):
    """y = γ x / √(mean over features and places of x² + eps), of (samples, features, *places), with γ of features."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize. Shape kept."""
        square = x.float().square().mean(tuple(range(1, x.ndim)), keepdim=True)
        scale = self.weight.view(-1, *(1 for _ in x.shape[2:]))
        return x * (square + EPS).rsqrt().to(x.dtype) * scale.to(x.dtype)


class RMSNormalization(SampleStatistics):
    """Give all that a layer returns for a sample the mean square 1, then each feature a learned scale: layer normalization without its mean.

    y = γ x / √(mean of x² + 10⁻⁶), the mean over features and positions of a sample; where features come last, as of the tokens of a
    transformer, over the features of each position. γ is of features.

    The norm follows each linear or convolution layer that a nonlinearity follows, and replaces the norm layers of the model, but for
    `torch.nn.RMSNorm`.

    Raises:
        RecipeError: no place for a norm layer in the model; convolutions over places that a mask leaves out.

    Source: Zhang & Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.
    """

    kept = (nn.RMSNorm,)

    def make(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, features, *places)."""
        if features * math.prod(places) < 2:
            return None
        return FeatureMapRMSNorm(features, EPS) if places else nn.RMSNorm(features, EPS)

    def make_last(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, *places, features)."""
        return nn.RMSNorm(features, EPS) if features > 1 else None
