"""Gradient centralization (Yong et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from plugins.base import Module, Plugin, Stage
from plugins.parameters import TABLES, named_parameters
from plugins.shards import part, summed

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def centralize(gradient: Float[Tensor, " units *inputs"]) -> Float[Tensor, ""]:
    """Take the mean over what leads into each unit away, in place; the square of the norm of what was taken."""
    mean = gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)
    gradient.sub_(mean)
    return mean.square().sum() * gradient.shape[1:].numel()


class GradientCentralization(Plugin):
    """Take its mean away from the gradient of each unit, so that the weights that lead into it keep their mean.

    g_i ← g_i − mean(g_i) for each unit i, a row of a matrix, a filter of a convolution: the gradient is projected onto the plane on which
    Σ w_i is constant. Biases and norm layers are left alone, and so are units with a single weight, which would never learn, tables of embeddings,
    whose rows are no units, and transposed convolutions, whose weights lie by their inputs.
    It comes before clipping, and only to the gradient that updates the weights, as the last one of sam. Costs no passes.

    Source: Yong, Huang, Hua & Zhang, "Gradient Centralization: A New Optimization Technique for Deep Neural Networks", ECCV 2020.
    """

    stage = Stage.GRADIENT
    on_shards = True

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Centralize the gradients of weights, and log the norm of what was taken away."""
        weights = [
            weight
            for each in named_parameters(module.model)
            if each.kind == "weight"
            and each.parameter.requires_grad
            and not isinstance(each.module, (*TABLES, _ConvTransposeNd))
            if (weight := each.parameter).grad is not None and weight.ndim > 1 and weight.shape[1:].numel() > 1
        ]
        if weights:
            taken = torch.stack([centralize(part(weight.grad)) for weight in weights]).sum()
            self.record(module, "removed", summed(taken, weights[0]).sqrt())
