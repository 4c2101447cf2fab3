"""Weight standardization (Qiao et al., 2019)."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from plugins.normalization._groups import fitting_groups
from plugins.normalization._over import SampleStatistics

if TYPE_CHECKING:
    from jaxtyping import Float

EPS = 1e-6


def standardized(weight: Float[Tensor, "outputs inputs *kernel"]) -> Float[Tensor, "outputs inputs *kernel"]:
    """Ŵ = (W − μ) / √(σ² + 10⁻⁶), with μ and σ² = mean of (W − μ)² over the weights of one output."""
    axes = tuple(range(1, weight.ndim))
    mean, variance = weight.mean(axes, keepdim=True), weight.var(axes, correction=0, keepdim=True)
    return (weight - mean) * (variance + EPS).rsqrt()


class Standardized(nn.Module):
    """A layer that runs with its weight standardized; whoever asks for its weight gets the one that is trained, under the same name."""

    kind: ClassVar[type[nn.Module]]  # of the layer without this
    runs = False

    @property
    def weight(self) -> Tensor:
        """The weight that is trained; while the layer runs, that weight standardized."""
        held: Any = self._parameters["weight"]
        if not self.runs:
            return held
        if not isinstance(self, _ConvTransposeNd):
            return standardized(held)
        maps = held.unflatten(0, (self.groups, -1)).transpose(1, 2)  # (groups, outputs, inputs, *kernel) of a group
        return standardized(maps.flatten(0, 1)).unflatten(0, maps.shape[:2]).transpose(1, 2).flatten(0, 1)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the layer returns."""
        self.runs = True
        try:
            return super().forward(*inputs, **named)
        finally:
            self.runs = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (self.kind,), self.__dict__


@cache
def class_of(kind: Any) -> Any:
    """A class of layers as `Standardized`."""
    return type(f"Standardized{kind.__name__}", (Standardized, kind), {"__module__": __name__, "kind": kind})


def _blank(kind: Any) -> Any:
    made = class_of(kind)
    return made.__new__(made)


def standardize(layer: nn.Module) -> None:
    """Have a layer run with its weight standardized, unless its outputs have one weight each, or it is computed from others."""
    weight, kind = layer._parameters.get("weight"), cast("Any", type(layer))
    if isinstance(layer, Standardized) or weight is None:
        return
    outputs = layer.out_channels if isinstance(layer, _ConvTransposeNd) else len(weight)
    if weight.numel() > outputs:
        layer.__class__ = class_of(kind)


class WeightStandardization(SampleStatistics):
    """Run layers with weights of zero mean and unit variance, and normalize what they return in groups of features.

    Ŵ = (W − μ) / √(σ² + 10⁻⁶), with μ and σ² over the weights of one output; W is trained, saved and decayed, through Ŵ. Behind the layer
    stands group normalization, as in the paper, with as many groups, up to 32, as leave 16 numbers or more to each.

    The norm follows each linear or convolution layer that a nonlinearity follows, and replaces the norm layers of the model; the weights of
    all layers are standardized that a norm follows then, but not those of an output layer.

    Raises:
        RecipeError: no place for a norm layer in the model; places that a mask leaves out.

    Source: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019.
    """

    def make(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, features, *places)."""
        return nn.GroupNorm(fitting_groups(features, places), features) if features * math.prod(places) > 1 else None

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the norms in, and standardize the weights in front of them."""
        for name in self.place(model):
            standardize(model.get_submodule(name))
        return model
