"""Norms and histograms of the gradient, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plugins.base import Module, Panel, declare
from plugins.diagnostics._layers import layer_of
from plugins.diagnostics._looks import Looks
from plugins.shards import whole


def layer_gradients(model: nn.Module) -> dict[str, Tensor]:
    """All gradients of a layer (weight, bias, …) as one vector, by the layer's name; layers without a gradient left out."""
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            parts.setdefault(layer_of(name), []).append(whole(parameter.grad).flatten())
    return {layer: torch.cat(gradients) for layer, gradients in parts.items()}


class GradientStats(Looks):
    """Log the norm and the histogram of each layer's gradient, and the norm of the whole.

    ‖g_l‖₂ for each layer l, and (Σ_l ‖g_l‖²)^½, of the gradient that updates the weights: clipped, where it is clipped.

    Source: lecture D (Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010).
    """

    on_shards = True

    every_n_steps: int = declare.count(
        "steps between two looks, the first at the first step", default=200, more="The steps in between cost nothing."
    )

    @torch.no_grad()
    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Look, and change nothing."""
        if not self.looks_at(module.steps_done + 1):  # the step under way
            return
        gradients = layer_gradients(module.model)
        norms = {layer: gradient.norm() for layer, gradient in gradients.items()}
        for layer, gradient in gradients.items():
            self.record(module, f"{layer}_norm", norms[layer], at_once=True)
            module.record_histogram(f"{self.option}/{layer}", gradient, at_once=True)
        if norms:
            self.record(module, "norm", torch.stack(list(norms.values())).norm(), at_once=True)

    def drawing(self) -> Sequence[Panel]:
        """The last histograms, and the norms over the steps."""
        return [Panel("gradient", histograms=True), Panel("norm of the gradient", "norm")]
