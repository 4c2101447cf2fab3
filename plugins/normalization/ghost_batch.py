"""Ghost batch normalization (Hoffer et al., 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from plugins.base import declare
from plugins.normalization._over import BatchStatistics


class GhostBatchNorm(_NormBase):
    """Batch norm in training over parts of the batch, each by itself, of `size` samples or a few more; at test as batch norm.

    Running statistics take in one part after the other.
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__(features)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (samples, features, *places). Shape kept."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return torch.cat([self._normalized(part) for part in x.tensor_split(max(1, len(x) // self.size))])

    def _normalized(self, part: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        return F.batch_norm(part, self.running_mean, self.running_var, self.weight, self.bias, True, share, self.eps)


class GhostBatchNormalization(BatchStatistics):
    """Normalize parts of the batch, each by its own mean and variance: the noise of a small batch at the speed of a large one.

    y = γ (x − μ) / √(σ² + 10⁻⁵) + β, with μ and σ² over the samples, and positions, of a part of the batch in training. A batch of n samples has
    ⌊n / size⌋ parts of equal size, or nearly so. At test μ and σ² are running averages over all parts, each of which counts 0.1.

    The norm follows each linear or convolution layer that a nonlinearity follows, and replaces the norm layers of the model.
    `trainer.sync_batchnorm=true` does not join processes here.

    Raises:
        RecipeError: no place for a norm layer in the model.
        Refusal: batches of one sample, which is its own mean where a layer has no further places; inputs by name, such as tokens with a
            mask.

    Source: Hoffer, Hubara & Soudry, "Train longer, generalize better", NeurIPS 2017, algorithm 1.
    """

    size: int = declare.count("samples that are normalized together", default=16, least=2)

    def make(self, features: int, places: tuple[int, ...]) -> nn.Module:
        """A norm for (samples, features, *places)."""
        return GhostBatchNorm(features, self.size)
