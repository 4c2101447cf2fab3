"""Batch normalization (Ioffe & Szegedy, 2015)."""

from __future__ import annotations

from torch import nn

from plugins.base import declare
from plugins.normalization._over import BatchStatistics


class BatchNormalization(BatchStatistics):
    """Give each feature zero mean and unit variance over the batch, then a learned scale and shift.

    y = γ (x − μ) / √(σ² + eps) + β, with μ and σ² = mean of (x − μ)² over the samples, and positions, of the batch in training.
    At test they are running averages over the training batches: μ̄ ← (1 − momentum) μ̄ + momentum · μ, and so for σ².

    The norm follows each linear or convolution layer that a nonlinearity follows, and replaces the norm layers of the model.
    Each part of an accumulated step and each process normalizes by its own samples, with running averages over all of them;
    `trainer.sync_batchnorm=true` joins the processes of several GPUs.

    Raises:
        RecipeError: no place for a norm layer in the model.
        Refusal: batches of one sample, which is its own mean where a layer has no further places; inputs by name, such as tokens with a
            mask.

    Source: Ioffe & Szegedy, "Batch normalization", ICML 2015; lectures A, B, D and E.
    """

    momentum: float = declare.share("share of the new batch in the running mean and variance", default=0.1)
    eps: float = declare.number("added to the variance", default=1e-5, above=0)

    def make(self, features: int, places: tuple[int, ...]) -> nn.Module:
        """A norm for (samples, features, *places)."""
        kind = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(places)]
        return kind(features, self.eps, self.momentum)
