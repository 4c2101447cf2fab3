"""Initial weights of one size and random signs."""

from __future__ import annotations

import math

import torch
from torch import nn

from plugins.base import Plugin, Stage, derive_seed, expect_positive
from plugins.parameters import named_parameters


class Signs(Plugin):
    """Draw the sign of each weight, all of one size: the variance of Kaiming's draw.

    W = ± gain / √fan_in, both signs equally likely; biases stay as they are.

    Args:
        gain: > 0; √2 keeps the variance of signals through layers with ReLU.

    Source: Frankle, Schwab & Morcos, "The Early Phase of Neural Network Training", 2020, which keeps signs only.
    """

    stage = Stage.INIT

    def __init__(self, gain: float = math.sqrt(2)) -> None:
        expect_positive("gain", gain)
        self.gain = gain

    @torch.no_grad()
    def transform_model(self, model: nn.Module) -> nn.Module:
        """Draw each weight from a generator of its own, seeded by the run's seed and the weight's name."""
        for named in named_parameters(model):
            if named.kind == "weight" and named.parameter.ndim > 1:
                seed = derive_seed(self.setting.seed, self.option, named.name)
                drawn = torch.randint(2, named.parameter.shape, generator=torch.Generator().manual_seed(seed))
                size = self.gain / math.sqrt(named.parameter[0].numel())
                named.parameter.copy_(size * (2.0 * drawn - 1))
        return model
