"""Convolutions that start as identities."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from plugins.base import RecipeError
from plugins.init._draw import WeightInit
from plugins.sites import weight_layers


class DiracInit(WeightInit):
    """Let each convolution start as the identity.

    W[o, i] = 1 at the centre of the kernel where o = i, else 0, in each group of a convolution by itself; biases 0. Outputs beyond the number
    of inputs are 0. Other layers keep the weights that the model's constructor drew.

    Raises:
        RecipeError: no convolution in the model.

    Source: Zagoruyko & Komodakis, "DiracNets: Training Very Deep Neural Networks Without Skip-Connections", 2017.
    """

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place; what has no kernel stays."""
        if weight.ndim > 2:
            nn.init.dirac_(weight)

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Set all convolutions, and tell which outputs are 0."""
        outputs, idle = (sum(numbers) for numbers in zip((0, 0), *_outputs(model), strict=True))
        if not outputs:
            raise RecipeError(
                f"init/dirac makes identities of convolutions, and {type(model).__name__} has none: choose another model, or init=orthogonal"
            )
        if idle:
            self.remarks = [
                f"{idle:,} of {outputs:,} outputs of convolutions are 0 at the start, as there are more than inputs: behind a rectified "
                f"linear unit they stay 0"
            ]
        return super().transform_model(model)


def _outputs(model: nn.Module) -> Iterator[tuple[int, int]]:
    """The outputs of each convolution, and how many of them are beyond the number of inputs."""
    for _, layer in weight_layers(model):
        if isinstance(layer, _ConvNd):
            yield layer.out_channels, max(0, layer.out_channels - layer.in_channels)
