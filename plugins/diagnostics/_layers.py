"""Weights by the layer that they belong to, also where each process keeps a part of them."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from plugins.diagnostics._looks import summed
from plugins.parameters import named_parameters
from plugins.shards import is_shard, part

PARAMETRIZED = re.compile(r"(^|\.)parametrizations\.\w+$")


def layer_of(name: str) -> str:
    """The name of the layer that a parameter belongs to, by its own; "model" for one of the model itself."""
    return PARAMETRIZED.sub("", name.rpartition(".")[0]) or "model"


def weights_by_layer(model: nn.Module) -> dict[str, list[Tensor]]:
    """The weights, not biases or norm layers, by the layer's name; each once however often it is used."""
    found: dict[str, list[Tensor]] = {}
    for named in named_parameters(model):
        if named.kind == "weight":
            found.setdefault(layer_of(named.name), []).append(named.parameter.detach())
    return found


@torch.no_grad()
def sums_by_layer(model: nn.Module, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The sum over the weights of each layer of a scalar `of` each, over the parts of all processes."""
    layers = weights_by_layer(model)
    if not layers:
        return {}
    sums = torch.stack([torch.stack([of(part(weight)) for weight in weights]).sum() for weights in layers.values()])
    if any(is_shard(weight) for weights in layers.values() for weight in weights):
        sums = summed(sums)
    return dict(zip(layers, sums, strict=True))
