"""Where norm layers belong in a model, and putting them there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugins.activations import tensors
from plugins.base import RecipeError
from plugins.sites import ACTIVATIONS, NORMS, WEIGHTED, Call, attach, trace

UNNAMED = (nn.Softsign, nn.Tanhshrink, nn.Threshold, nn.GLU)  # made of other functions, or of arguments that say what they are
MakeNorm = Callable[[int, int], nn.Module]


class FeaturesLast(nn.Module):
    """Run a norm layer, which wants features second, on (samples, positions, features)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalize. Shape kept."""
        return self.norm(x.movedim(-1, 1)).movedim(1, -1)


@torch.enable_grad()
def place_norms(model: nn.Module, shape: tuple[int, ...], make: MakeNorm, fill: bool = True) -> None:
    """Replace each norm layer where it stands and, with `fill`, put one after each layer that has none.

    A layer has none if its output, on the way to the next linear or convolution layer, meets a nonlinearity but no norm.
    An output layer, from which the model's output is reached without a further layer, gets none. `make(features, positions)`
    makes the norm for features in dimension 1 and that many dimensions of positions behind it.

    Raises :class:`RecipeError` if there is no place for a norm.
    """
    calls, result = trace(model, shape, graph=True)
    layers = {call.node: call for call in calls if isinstance(call.module, WEIGHTED) and call.node is not None}
    norms = [call for call in calls if isinstance(call.module, NORMS)]
    ends = [tensor.grad_fn for tensor in tensors(result)]
    layers_and_norms = {**layers, **{call.node: call for call in norms}}
    nonlinear = {call.node for call in calls if isinstance(call.module, ACTIVATIONS)}
    functional = {
        kind().eval()(torch.zeros(1, requires_grad=True)).grad_fn.name() for kind in ACTIVATIONS if kind not in UNNAMED
    }
    nonlinear |= {node for node in _backwards(ends) if node.name() in functional}  # torch.relu(self.conv(x))

    outputs = _names(_backwards(ends, layers), layers)
    normalized = _names(_backwards(_before(call.node for call in norms), layers_and_norms), layers)
    followed = _names(_backwards(_before(nonlinear), layers_and_norms), layers)
    missing = followed - normalized - outputs if fill else set()
    if not norms and not missing:
        raise RecipeError(
            f"no place for a norm layer in {type(model).__name__}: looked for norm layers to replace, and for linear and "
            "convolution layers, the output layer apart, that a nonlinearity follows; use normalization=model"
        )
    for call in {call.name: call for call in norms}.values():
        _replace(model, call, make)
    for call in {call.name: call for call in layers.values() if call.name in missing}.values():
        attach(call.module, "norm", _norm(call.output, isinstance(call.module, nn.Linear), make))


def _replace(model: nn.Module, call: Call, make: MakeNorm) -> None:
    sizes = getattr(call.module, "normalized_shape", ())
    # Subclasses such as LayerNorm2d swap dimensions around the norm: their features are in dimension 1.
    swaps = type(call.module) not in (nn.LayerNorm, nn.RMSNorm) and call.input.ndim == 4 and (call.input.shape[1],) == sizes
    norm = _norm(call.input, len(sizes) == 1 and not swaps, make)
    if children := list(call.module.children()):  # a norm with its activation in one, as timm has them
        norm = nn.Sequential(norm, *children)
    parent, _, name = call.name.rpartition(".")
    setattr(model.get_submodule(parent), name, norm)


def _norm(x: Tensor, features_last: bool, make: MakeNorm) -> nn.Module:
    """A norm for tensors like x."""
    if features_last and x.ndim > 2:
        return FeaturesLast(make(x.shape[-1], x.ndim - 2)).to(x.device)
    return make(x.shape[1], x.ndim - 2).to(x.device)


def _before(nodes: Iterable[Any]) -> list[Any]:
    """What the given places of the graph take their inputs from."""
    return [before for node in nodes if node is not None for before, _ in node.next_functions]


def _backwards(nodes: Iterable[Any], stops: Mapping[Any, Call] | None = None) -> set[Any]:
    """All places of the graph that the given ones depend on, themselves included, without going past `stops`."""
    seen: set[Any] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if not stops or node not in stops:
                waiting += _before([node])
    return seen


def _names(nodes: set[Any], layers: Mapping[Any, Call]) -> set[str]:
    """The layers among the given places, by name."""
    return {layers[node].name for node in nodes if node in layers}
