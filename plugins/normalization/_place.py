"""Where norm layers belong in a model, and putting them there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugins.activations import tensors
from plugins.base import RecipeError
from plugins.normalization._kinds import features_last, is_norm
from plugins.replacing import call_always, replace_module
from plugins.sites import ACTIVATIONS, WEIGHTED, Call, attach, trace

UNNAMED = (nn.Softsign, nn.Tanhshrink, nn.Threshold, nn.GLU)  # made of other functions, or of arguments that say what they are
MakeNorm = Callable[[int, tuple[int, ...]], "nn.Module | None"]


class FeaturesLast(nn.Module):
    """Run a norm layer, which wants features second, on (samples, places, features)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalize. Shape kept."""
        return self.norm(x.movedim(-1, 1)).movedim(1, -1)


@torch.enable_grad()
def place_norms(
    model: nn.Module,
    shape: tuple[int, ...],
    make: MakeNorm,
    make_last: MakeNorm | None = None,
    fill: bool = True,
    kept: tuple[type[nn.Module], ...] = (),
) -> list[str]:
    """Replace each norm layer where it stands and, with `fill`, put one after each layer that has none.

    A layer has none if its output, on the way to the next linear or convolution layer, meets a nonlinearity but no norm.
    An output layer, from which the model's output is reached without a further layer, gets none.

    Args:
        model: to change.
        shape: of a sample.
        make: makes the norm for so many features in dimension 1 and places of these sizes behind it; None: there is to be none.
        make_last: the one for features in the last dimension, behind the places; None: `make`'s, with dimensions swapped.
        fill: whether norms are put where none is, and at least one is expected.
        kept: types of norm layers that stay as they are.

    Returns:
        The layers, by name, that a norm follows now.

    Raises:
        RecipeError: there is no place for a norm.
    """
    calls, result = trace(model, shape, graph=True)
    layers = {call.node: call for call in calls if isinstance(call.module, WEIGHTED) and call.node is not None}
    norms = [call for call in calls if is_norm(call.module)]
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
    if fill and not norms and not missing:
        raise RecipeError(
            f"no place for a norm layer in {type(model).__name__}: looked for norm layers to replace, and for linear and "
            "convolution layers, the output layer apart, that a nonlinearity follows; use normalization=model"
        )

    def made(x: Tensor, last: bool) -> nn.Module | None:
        if not last or x.ndim == 2:
            norm = make(x.shape[1], tuple(x.shape[2:]))
        elif make_last is not None:
            norm = make_last(x.shape[-1], tuple(x.shape[1:-1]))
        else:
            inner = make(x.shape[-1], tuple(x.shape[1:-1]))
            norm = None if inner is None else FeaturesLast(inner)
        return None if norm is None else norm.to(x.device)

    changed = {call.name: call for call in norms if not isinstance(call.module, kept)}
    instead = {name: made(call.input, features_last(call)) for name, call in changed.items()}
    bare = {call.name: call for call in layers.values() if call.name in missing}
    added = {
        name: norm for name, call in bare.items() if (norm := made(call.output, isinstance(call.module, nn.Linear))) is not None
    }
    there = [call for call in norms if instead.get(call.name, call) is not None]
    if fill and not there and not added:
        raise RecipeError(
            f"no place for such a norm layer in {type(model).__name__}: wherever there may be one it would have a single number for each "
            "of its means; use normalization=layer, or normalization=model"
        )
    for name, norm in instead.items():
        children = list(changed[name].module.children())  # a norm with its activation in one, as timm has them
        norm = nn.Identity() if norm is None else norm
        replace_module(model, changed[name].module, nn.Sequential(norm, *children) if children else norm)
    for name, norm in added.items():
        attach(bare[name].module, "norm", norm)
        call_always(model, norm)
    return sorted(_names(_backwards(_before(call.node for call in there), layers_and_norms), layers) | added.keys())


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
