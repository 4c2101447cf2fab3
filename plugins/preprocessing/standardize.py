"""Standardization: zero mean and unit variance."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from plugins.base import Plugin, Stage, declare
from plugins.preprocessing._layer import Affine, inverse_std, moments, per_parameter, statistics_shape

ROUNDING = 1e-7  # a deviation of a share of the mean as small as this comes from rounding


class StandardizeInputs(Plugin):
    """Put inputs on one scale by mean and standard deviation of the training split.

    x ← (x − mean) / std, std² = mean of (x − mean)², both over the training samples only, and the same for every split.
    A feature that is constant in training becomes 0 in every split.

    Raises:
        RecipeError: training inputs that are not finite.

    Source: lectures A, B, D and E.
    """

    stage = Stage.PREPROCESSING
    on_named_inputs = False

    per: str | None = per_parameter()
    eps: float = declare.number(
        "standard deviation up to which a feature counts as constant and becomes 0",
        default=1e-8,
        least=0,
        more="In units of the data.",
    )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layer in front, fitted; its values come from the checkpoint where a finished run is loaded."""
        shape = statistics_shape(self.setting.shape, self.per)
        inputs = self.setting.training_inputs
        mean, variance = moments(inputs(), shape) if inputs else (torch.zeros(shape), torch.ones(shape))
        std = variance.sqrt()
        if small := int(((std > ROUNDING * mean.abs()) & (std <= self.eps)).sum()):
            least = float(std[std > ROUNDING * mean.abs()].min())
            warnings.warn(
                f"{small} of {std.numel()} features deviate by no more than preprocessing.eps={self.eps:g}, and so become 0: type "
                f"preprocessing.eps={least / 10:.0e} if they are not constant",
                stacklevel=1,
            )
        return Affine(model, mean, inverse_std(variance, self.eps))
