"""Drawing the weights of a model's layers, each from a stream of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from plugins.base import Plugin, RecipeError, Stage, derive_seed
from plugins.parameters import kind_of_parameter
from plugins.sites import RECURRENT, weight_layers


class WeightInit(Plugin):
    """Draw the weights of linear, convolution, recurrent and attention layers anew; set their biases to 0.

    A weight that several layers share is drawn once, for the first of them. Each layer draws from a generator seeded by the
    run's seed and the layer's name: a layer more or less leaves the others' weights alone, and the global random numbers
    are not touched.
    """

    stage: ClassVar[Stage] = Stage.INIT

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        raise NotImplementedError

    @torch.no_grad()
    def transform_model(self, model: nn.Module) -> nn.Module:
        """Draw all layers."""
        drawn: set[int] = set()
        for layer_name, layer in weight_layers(model):
            generator = torch.Generator(next(layer.parameters()).device)
            generator.manual_seed(derive_seed(self.setting.seed, "init", layer_name))
            for name, parameter in own_parameters(layer_name, layer):
                if id(parameter) in drawn:
                    continue
                drawn.add(id(parameter))
                if kind_of_parameter(layer, name, parameter) == "bias":
                    parameter.zero_()
                else:
                    for matrix in matrices(layer, parameter):
                        self.draw(matrix, generator)
        return model


def own_parameters(layer_name: str, layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A layer's own parameters; what a parametrization computes from another tensor stands for that tensor."""
    yield from layer.named_parameters(recurse=False)
    if parametrize.is_parametrized(layer):
        for name, held in layer.parametrizations.items():  # type: ignore[operator, union-attr]
            if not hasattr(held, "original"):
                raise RecipeError(
                    f"init cannot draw {layer_name}.{name}, which is computed from several tensors: use init=framework"
                )
            yield name, held.original


def matrices(layer: nn.Module, weight: Tensor) -> list[Tensor]:
    """The maps that a weight tensor is made of, as views (outputs, inputs, *kernel).

    The gates of a recurrent layer, the groups of a convolution and the queries, keys and values of an attention are maps of
    their own; a transposed convolution keeps its inputs first.
    """
    if isinstance(layer, _ConvNd):
        groups = list(weight.chunk(layer.groups))
        return [group.transpose(0, 1) for group in groups] if isinstance(layer, _ConvTransposeNd) else groups
    if isinstance(layer, nn.MultiheadAttention):
        return list(weight.chunk(max(1, len(weight) // layer.embed_dim)))
    if isinstance(layer, RECURRENT):
        return list(weight.chunk(max(1, len(weight) // int(layer.hidden_size))))  # type: ignore[arg-type]
    return [weight]
