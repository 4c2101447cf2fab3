"""The norms of the weights, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.base import Module, Panel, declare
from plugins.diagnostics._layers import sums_by_layer
from plugins.diagnostics._looks import Looks


def norms(model: nn.Module) -> dict[str, Tensor]:
    """‖w_l‖₂ over the weights of each layer l, and under "" that of all, (Σ_l ‖w_l‖²)^½."""
    squares = sums_by_layer(model, lambda weight: weight.abs().float().square().sum())
    found = {layer: square.sqrt() for layer, square in squares.items()}
    return {**found, "": torch.stack([*squares.values()]).sum().sqrt()} if found else {}


class WeightNorm(Looks):
    """Log the norm of each layer's weights, and that of all.

    ‖w_l‖₂ for each layer l, and (Σ_l ‖w_l‖²)^½, after the update: of weights, not of biases or norm layers, as penalties on the norm have it.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 7.1; lecture A.
    """

    on_shards = True

    every_n_steps: int = declare.count("steps between two looks, the first at the first step", default=50)

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Look at the new weights."""
        if self.looks_at(module.steps_done):
            for layer, norm in norms(module.model).items():
                self.record(module, f"{layer}_norm" if layer else "norm", norm, at_once=True)

    def drawing(self) -> Sequence[Panel]:
        """The norms over the steps."""
        return [Panel("norm of the weights", "norm")]
