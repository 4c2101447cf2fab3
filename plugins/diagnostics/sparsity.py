"""The share of weights that are zero, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.base import Module, Panel, declare
from plugins.diagnostics._layers import sums_by_layer, weights_by_layer
from plugins.diagnostics._looks import Looks


def zeros(model: nn.Module, below: float = 0.0) -> dict[str, Tensor]:
    """The share of |w| ≤ below among the weights of each layer, and under "" among all."""
    counts = sums_by_layer(model, lambda weight: (weight.abs() <= below).sum())
    numbers = {layer: sum(weight.numel() for weight in weights) for layer, weights in weights_by_layer(model).items()}
    found = {layer: count / numbers[layer] for layer, count in counts.items()}
    return {**found, "": torch.stack([*counts.values()]).sum() / sum(numbers.values())} if found else {}


class Sparsity(Looks):
    """Log the share of weights that are zero, of each layer and of all.

    #{|w| ≤ below} / #w after the update: of weights, not of biases or norm layers. An L1 penalty makes weights exactly zero if it is proximal
    (regularizer.l1.proximal=true); by its gradient alone they swing around zero, and `below` counts them.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 7.1.2; lecture A.
    """

    on_shards = True

    below: float = declare.number("absolute value up to which a weight counts as zero", default=0.0, least=0)
    every_n_steps: int = declare.count("steps between two looks, the first at the first step", default=50)

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Look at the new weights."""
        if self.looks_at(module.steps_done):
            for layer, share in zeros(module.model, self.below).items():
                self.record(module, f"{layer}_zeros" if layer else "zeros", share, at_once=True)

    def drawing(self) -> Sequence[Panel]:
        """The shares over the steps."""
        return [Panel("share of weights that are zero", "zeros")]
