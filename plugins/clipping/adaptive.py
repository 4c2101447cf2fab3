"""Adaptive gradient clipping (Brock et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from plugins.base import Module, RecipeError, Setting, declare
from plugins.clipping._clipping import Clipping
from plugins.clipping._norms import total_norm, with_gradient
from plugins.depth import depths
from plugins.parameters import by_unit, named_parameters
from plugins.shards import kept_like, whole

if TYPE_CHECKING:
    from jaxtyping import Float


def unit_norms(weight: Float[Tensor, " units *inputs"]) -> Float[Tensor, " norms *ones"]:
    """‖W_i‖₂ of the weights that lead into each unit, over all dimensions but the first; of a vector or a number the norm of the whole."""
    if weight.ndim < 2:
        return weight.norm().reshape([1] * weight.ndim)
    return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))


def shortening(weight: Tensor, gradient: Tensor, ratio: float, eps: float) -> Tensor:
    """min(1, ratio · max(‖W_i‖, eps) / ‖G_i‖) of each unit, to multiply by."""
    largest, norm = ratio * unit_norms(weight).clamp_min(eps), unit_norms(gradient)
    return (largest / norm).where(norm > largest, 1.0)


@torch.no_grad()
def clip_adaptively(
    parameters: Sequence[nn.Parameter], ratio: float, eps: float, transposed: Mapping[int, nn.Module] = MappingProxyType({})
) -> None:
    """Scale the gradient of each unit, in place, by min(1, ratio · max(‖W_i‖, eps) / ‖G_i‖).

    `transposed` has the layers of weights, by id, that lie by their inputs, as those of transposed convolutions.
    """
    for parameter in with_gradient(parameters):
        assert parameter.grad is not None
        if layer := transposed.get(id(parameter)):
            factor = torch.ones_like(whole(parameter))
            for weight, gradient, its in zip(
                *(by_unit(whole(each), layer) for each in (parameter, parameter.grad, factor)), strict=True
            ):
                its.mul_(shortening(weight, gradient, ratio, eps))
            parameter.grad.mul_(kept_like(factor, parameter))
        else:
            parameter.grad.mul_(shortening(parameter, parameter.grad, ratio, eps))


class ClipAdaptively(Clipping):
    """Shorten the gradient of each unit to a share of the norm of its weights.

    G_i ← G_i · min(1, ratio · max(‖W_i‖₂, eps) / ‖G_i‖₂) for each unit i, the weights that lead into it: a row of a matrix, a filter of a
    convolution, transposed or not; a bias or the scale of a norm layer as a whole. The output layer is left alone, as its source does, unless
    `head` is true.
    A NaN stays a NaN. The norms that are logged are over all parameters together.

    Raises:
        RecipeError: a model that is its output layer, with which nothing would be clipped.

    Source: Brock, De, Smith & Simonyan, "High-performance large-scale image recognition without normalization", ICML 2021, equation 3.
    """

    ratio: float = declare.number(
        "λ, the largest norm of a unit's gradient as a share of the norm of its weights", default=0.01, above=0
    )
    eps: float = declare.number(
        "least norm of weights that counts, so that weights that are zero can learn", default=1e-3, above=0
    )
    head: bool = declare.flag("clip the gradient of the output layer too", default=False)

    def prepare(self, setting: Setting) -> None:
        """Forget the output layer of another model."""
        super().prepare(setting)
        self._left_out: set[int] | None = None
        self._transposed: dict[int, nn.Module] = {}

    def clip(self, module: Module, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
        """Scale the gradient of each unit that has to be."""
        if self._left_out is None:
            named = dict(module.model.named_parameters(remove_duplicate=False))
            depth = depths(module.model)
            self._left_out = set() if self.head else {id(named[name]) for name, layers in depth.items() if layers == 0}
            if self._left_out.issuperset(map(id, named.values())):
                raise RecipeError(
                    f"{self.state_key} leaves the output layer alone, and {type(module.model).__name__} is that layer: type "
                    f"clipping.head=true, or +clipping=norm"
                )
            self._transposed = {
                id(each.parameter): each.module
                for each in named_parameters(module.model)
                if each.kind == "weight" and isinstance(each.module, _ConvTransposeNd)
            }
        given = with_gradient(parameters)
        before = total_norm(given)
        clip_adaptively([each for each in given if id(each) not in self._left_out], self.ratio, self.eps, self._transposed)
        return before, total_norm(given)
