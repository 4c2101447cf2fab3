"""A penalty on the size of the outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from plugins.base import Batch, Module, Plugin, Stage, expect_nonnegative


def mean_square(outputs: Mapping[str, Tensor]) -> Tensor:
    """The mean of z² over samples and outputs, added over tasks."""
    return torch.stack([z.square().mean() for z in outputs.values()]).sum()


class SmallOutputs(Plugin):
    """Keep the outputs small, so that the model is never too sure.

    J(θ) + weight · mean(z²), over the outputs z before softmax.

    Args:
        weight: strength, ≥ 0; 0 is an exact no-op.

    Source: Kannan, Kurakin & Goodfellow, "Adversarial Logit Pairing", 2018 (logit squeezing).
    """

    stage = Stage.PENALTY
    off = {"weight": 0.0}

    def __init__(self, weight: float = 0.01) -> None:
        expect_nonnegative("weight", weight)
        self.weight = weight

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The term added to the loss."""
        return self.weight * mean_square(outputs) if self.weight else None
