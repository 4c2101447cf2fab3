"""A penalty on the size of the outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from plugins.base import Batch, Module, Plugin, Stage, declare


def mean_square(outputs: Mapping[str, Tensor]) -> Tensor:
    """The mean of z² over samples and outputs, added over tasks."""
    return torch.stack([z.square().mean() for z in outputs.values()]).sum()


class SmallOutputs(Plugin):
    """Keep the outputs small, so that the model is never too sure.

    J(θ) + weight · mean(z²), over the outputs z before softmax.

    Source: Kannan, Kurakin & Goodfellow, "Adversarial Logit Pairing", 2018 (logit squeezing).
    """

    stage = Stage.PENALTY

    weight: float = declare.number("strength", default=0.01, least=0, off=0.0)

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The term added to the loss."""
        return self.weight * mean_square(outputs)
