"""The activations of a model, modules and functions alike, and the dropout that it has of its own: found by a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from plugins.base import RecipeError
from plugins.compiled import is_compiled
from plugins.sites import (
    ACTIVATIONS,
    DROPOUTS,
    NORMS,
    WEIGHTED,
    attached_to,
    blank_pass,
    own_modules,
    without_attached,
)

FUNCTIONS = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "elu", "selu", "celu", "gelu", "silu", "mish", "glu"),
    *("tanh", "sigmoid", "logsigmoid", "softplus", "softsign", "tanhshrink", "softshrink", "hardshrink"),
    *("hardswish", "hardtanh", "hardsigmoid"),
}
DROPPING = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"}
LAYERS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Mv", "Convolution", "ScaledDotProduct")  # what autograd calls layers with weights


@dataclass(frozen=True)
class Place:
    """A call in a forward pass: of a module, or of a function in the forward of a module.

    `made` is where the output was made in autograd's graph, `taken` where the input was; a module that returns a tuple is known
    by the first tensor in it. `shape` is that of the output, for two samples.
    """

    name: str
    module: nn.Module
    function: str = ""
    made: Any = None
    taken: Any = None
    shape: tuple[int, ...] = ()


@dataclass
class Passage:
    """What a forward pass met: activations, dropout layers, functions that drop, additions, and whatever modules return."""

    activations: list[Place] = field(default_factory=list)
    dropouts: list[Place] = field(default_factory=list)
    dropping: list[Place] = field(default_factory=list)
    additions: list[Place] = field(default_factory=list)
    calls: list[Place] = field(default_factory=list)  # of all modules, those inside before those around them
    layers: set[Any] = field(default_factory=set)
    norms: set[Any] = field(default_factory=set)
    outputs: list[Any] = field(default_factory=list)  # where what the model returned was made
    returned: dict[Any, tuple[str, nn.Module]] = field(default_factory=dict)  # who returned what was made there, innermost

    def clear(self) -> None:
        """Begin anew."""
        for found in vars(self).values():
            found.clear()

    def is_layer(self, node: Any) -> bool:
        """Whether a layer with weights, or a product, was made at a place of the graph."""
        return node in self.layers or node.name().startswith(LAYERS)

    def hidden(self) -> list[Place]:
        """The activations from which a further layer leads to the output: those that are the output itself are none."""
        seen: set[Any] = set()
        waiting = list(self.outputs)
        while waiting:
            node = waiting.pop()
            if node is None or node in seen or self.is_layer(node):
                continue
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
        return [place for place in self.activations if place.made is None or place.made not in seen]


_Entered = tuple[str, nn.Module, int]  # a module by its name, and the number of activations before it


class _Functions(TorchFunctionMode):
    """Sees each call of a function of torch's, with the module in whose forward it is made."""

    def __init__(self, passage: Passage, stack: list[_Entered]) -> None:
        super().__init__()
        self.passage, self.stack = passage, stack

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call it, and note it where it is an addition, or in the forward of something else an activation, or drops."""
        name = getattr(func, "__name__", "").rstrip("_")
        taken = args[0].grad_fn if args and isinstance(args[0], Tensor) and name in DROPPING else None
        result = func(*args, **(kwargs or {}))
        if (name in FUNCTIONS or name in DROPPING or name == "add") and isinstance(result, Tensor) and self.stack:
            where, module, _ = self.stack[-1]
            place = Place(where, module, name, result.grad_fn, taken, tuple(result.shape))
            if name == "add":
                self.passage.additions.append(place)
            elif name in FUNCTIONS and not isinstance(module, ACTIVATIONS):
                self.passage.activations.append(place)
            elif name in DROPPING and not isinstance(module, DROPOUTS):
                self.passage.dropping.append(place)
        return result


def passage(model: nn.Module, shape: Sequence[int]) -> Passage:
    """What two blank samples of a shape meet on their way through a model, layers that techniques attached left out.

    Raises:
        RecipeError: they do not pass through it.
    """
    found, handles = Passage(), []
    stack: list[_Entered] = []
    attached = {id(layer) for host in model.modules() for layer in attached_to(host)}

    def enter(name: str) -> Callable[..., None]:
        return lambda module, *inputs: stack.append((name, module, len(found.activations)))

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name, _, before = stack.pop()
        first = first_tensor(output)
        made = output.grad_fn if isinstance(output, Tensor) else None
        taken = inputs[0].grad_fn if inputs and isinstance(inputs[0], Tensor) else None
        place = Place(name, module, "", made, taken, () if first is None else tuple(first.shape))
        found.calls.append(place if first is None else replace(place, made=first.grad_fn))
        if isinstance(module, WEIGHTED) or _is_layer(module, name, attached):
            found.layers.add(made)
        elif isinstance(module, NORMS):
            found.norms.add(made)
        elif isinstance(module, DROPOUTS):
            found.dropouts.append(place)
        elif isinstance(module, ACTIVATIONS) or (len(found.activations) > before and _is_activation(module, attached)):
            found.activations[before:] = [place]
        if made is not None and made is not taken:
            found.returned.setdefault(made, (name, module))

    def again() -> None:
        found.clear()
        stack.clear()

    for name, module in own_modules(model):
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave, prepend=True))
    try:
        with (
            _Functions(found, stack),
            eagerly(model),
            _all_trained(model),
            without_attached(model),
            torch.random.fork_rng(devices=[]),
        ):
            result = blank_pass(model, shape, True, again)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"blank samples of shape {tuple(shape)}, by which its activations are found, do not pass through {type(model).__name__}: {first}"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    found.layers.discard(None)
    found.norms.discard(None)
    found.outputs = [tensor.grad_fn for tensor in tensors(result)]
    return found


def _is_layer(module: nn.Module, name: str, attached: Collection[int]) -> bool:
    """Whether a part of a model is a layer of somebody's own: it has weights and is made of nothing else."""
    return bool(name) and _is_whole(module, attached) and any(weight.ndim > 1 for weight in module.parameters(recurse=False))


def _is_activation(module: nn.Module, attached: Collection[int]) -> bool:
    """Whether a module that calls an activation is one itself, of somebody's own: it has no layers and no weights."""
    return _is_whole(module, attached) and all(weight.ndim < 2 for weight in module.parameters(recurse=False))


def _is_whole(module: nn.Module, attached: Collection[int]) -> bool:
    """Whether a module is made of no others, but for those that techniques have attached."""
    return all(id(child) in attached for child in module.children())


def eagerly(model: nn.Module) -> AbstractContextManager[Any]:
    """Run a compiled model as it is written: what is compiled tells nobody what it calls."""
    return torch.compiler.set_stance("force_eager") if is_compiled(model) else nullcontext()


@contextmanager
def _all_trained(model: nn.Module) -> Iterator[None]:
    """Let a graph lead through frozen layers too."""
    frozen = [weight for weight in model.parameters() if not weight.requires_grad and weight.is_floating_point()]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def first_tensor(output: object) -> Tensor | None:
    """The tensor that a module returns, or the first in the tuple that it returns; attached layers run on the same one."""
    first = output[0] if type(output) is tuple and output else output
    return first if isinstance(first, Tensor) else None


def tensors(result: object) -> Iterator[Tensor]:
    """The tensors in what a model returned."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        yield from (tensor for value in result.values() for tensor in tensors(value))
    elif isinstance(result, (list, tuple)):
        yield from (tensor for value in result for tensor in tensors(value))


def named(places: Iterable[Place]) -> str:
    """Functions and where they are called, in a few words."""
    words = list(dict.fromkeys(f"{place.function} in {place.name or type(place.module).__name__}" for place in places))
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
