"""Layer-sequential unit-variance initialization (Mishkin & Matas, 2016)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from plugins.base import LOOKED_AT, Stage
from plugins.init._draw import WeightInit, own_parameters
from plugins.init._orthogonal import fill_orthogonal
from plugins.inputs import Inputs, concatenated, each, some
from plugins.parameters import kind_of_parameter
from plugins.preprocessing._layer import InputLayer
from plugins.sites import WEIGHTED, evaluation_mode, weight_layers

SAMPLES = 128  # that are sent through the model
TOLERANCE = 1e-3  # by which a variance may differ from 1
ROUNDS = 10  # in which a layer is scaled at most
GOLDEN = 0.6180339887498949  # multiples of it, less their whole part, lie evenly in [0, 1]


class LSUVInit(WeightInit):
    """Give what each layer returns the variance 1, on samples of the training split, one layer after the other.

    W is drawn orthogonal; then, in the order in which layers run, W ← W / √Var(W h) until |Var − 1| < 0.001, or for 10 rounds, with h the inputs
    that the layer gets from those before it, and the variance over all that it returns for 128 samples, evenly spread over the first 10,000;
    biases 0. Layers are linear and convolution layers; recurrent and attention layers stay orthogonal. Dropout is off meanwhile, norm layers
    are as in an evaluation. A resumed run has its weights in its checkpoint.

    Source: Mishkin & Matas, "All you need is a good init", ICLR 2016, algorithm 1.
    """

    stage = Stage.MEASURED

    def draw(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (outputs, inputs, *kernel), in place."""
        fill_orthogonal(weight, 1.0, generator)

    @torch.no_grad()
    def transform_model(self, model: nn.Module) -> nn.Module:
        """Draw all layers, then scale them."""
        super().transform_model(
            model.model if isinstance(model, InputLayer) else model
        )  # a draw is of a layer's name in the model
        if self.setting.training_inputs is not None and not self.setting.restored:
            place = next(weight for weight in model.parameters() if weight.is_floating_point())
            x = each(spread(self.setting.training_inputs()), lambda x: x.to(place if x.is_floating_point() else place.device))
            scale_layers(model, x)
        return model


def spread(pieces: Iterable[Inputs]) -> Inputs:
    """So many samples as are looked at, evenly spread over the first 10,000, however these are cut into pieces."""
    kept: Any = None
    ranks, seen = torch.empty(0, dtype=torch.float64), 0
    for piece in pieces:
        places = torch.arange(seen, seen + len(some(piece)), dtype=torch.float64)
        seen += len(places)
        kept = piece if kept is None else concatenated([kept, piece])
        ranks = torch.cat([ranks, places * GOLDEN % 1])
        chosen = ranks.argsort(stable=True)[:SAMPLES].sort().values
        kept, ranks = each(kept, partial(torch.index_select, dim=0, index=chosen)), ranks[chosen]
        if seen >= LOOKED_AT:
            break
    return kept


@torch.no_grad()
def scale_layers(model: nn.Module, x: Inputs) -> None:
    """Scale the weights of linear and convolution layers, each in its first call, so that what it returns has the variance 1."""
    done: set[int] = set()
    handles = []
    for name, layer in weight_layers(model):
        held = [value for own, value in own_parameters(name, layer) if kind_of_parameter(layer, own, value) == "weight"]

        def scale(layer: nn.Module, inputs: Any, named: Any, output: Tensor, held: Sequence[Tensor] = held) -> Tensor:
            if done.intersection(map(id, held)):
                return output
            done.update(map(id, held))
            return scaled(layer, held, inputs, named, output)

        if isinstance(layer, WEIGHTED):
            handles.append(layer.register_forward_hook(scale, prepend=True, with_kwargs=True))
    try:
        with evaluation_mode(model):
            model(x)
    finally:
        for handle in handles:
            handle.remove()


def scaled(
    layer: nn.Module, weights: Sequence[Tensor], inputs: Sequence[Any], named: Mapping[str, Any], output: Tensor
) -> Tensor:
    """What a layer returns once its weights are divided by the deviation of it; a layer that takes no scale stays as it is."""
    for _ in range(ROUNDS):
        variance = output.double().var(correction=0)
        miss = (variance - 1).abs()
        if not bool(torch.isfinite(variance)) or variance == 0 or miss < TOLERANCE:
            break
        before = [weight.clone() for weight in weights]
        for weight in weights:
            weight /= variance.sqrt().to(weight.dtype)
        again = layer.forward(*inputs, **named)
        if not (again.double().var(correction=0) - 1).abs() < miss / 2:
            for weight, kept in zip(weights, before, strict=True):
                weight.copy_(kept)
            break
        output = again
    return output
