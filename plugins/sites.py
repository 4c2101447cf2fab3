"""Finding the places in a model where a technique acts, on any `nn.Module`, and putting layers there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from plugins.errors import RecipeError
from plugins.inputs import blank, each

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Threshold),
    *(nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.GLU),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink),
    *(nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid),
)
WEIGHTED: tuple[type[nn.Module], ...] = (nn.Linear, _ConvNd)
RECURRENT: tuple[type[nn.Module], ...] = (nn.RNNBase, nn.RNNCellBase)
NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
DROPOUTS: tuple[type[nn.Module], ...] = (_DropoutNd,)


def find_sites(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], what: str, names: Sequence[str] | None = None
) -> list[tuple[str, nn.Module]]:
    """The modules of the given types, with their names, in the order of the model; layers that techniques attached are none.

    `names` narrows by name, with wildcards: `["layer1.*", "head.1"]`. Raises :class:`RecipeError` if none is left.
    """
    found = [(name, module) for name, module in own_modules(model) if isinstance(module, kinds)]
    if names:
        kept = [(name, module) for name, module in found if any(fnmatchcase(name, pattern) for pattern in names)]
        if not kept:
            there = ", ".join(name for name, _ in found) or "none at all"
            raise RecipeError(f"no {what} matches sites={list(names)}; the model has: {there}")
        return kept
    if not found:
        looked_for = ", ".join(kind.__name__.lstrip("_") for kind in kinds)
        raise RecipeError(
            f"no {what} in {type(model).__name__}: looked for modules of type {looked_for}; choose another model or leave the technique out"
        )
    return found


def convolutions(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The convolutions over images, with their names. Raises :class:`RecipeError` if there is none."""
    return find_sites(model, (nn.Conv2d,), "convolution")


def takes_tokens(model: nn.Module) -> bool:
    """Whether whole numbers that go in are indices of an embedding, and not to become floats."""
    return any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in model.modules())


def attach(host: nn.Module, name: str, layer: nn.Module, before: bool = False) -> None:
    """Run `layer` on whatever `host` returns, from now on; of a tuple, as attention returns it, on what comes first.

    With `before` it runs on the first of what `host` is given. The layer becomes a child of its host, so it moves, saves and prints with it,
    and no existing parameter changes its name; it is in training mode if its host is. Layers attached one after the other run in that order.
    An `nn.Sequential` runs whatever is its child: there the layer is attached to its last, or first, module, and of a compiled model to
    that inside.
    """
    host = innermost(host, 0 if before else -1)
    place = "attached_before" if before else "attached"
    if not hasattr(host, place):
        setattr(host, place, Attached())
        if before:
            host.register_forward_pre_hook(_run_before)
        else:
            host.register_forward_hook(_run_attached)
    names = getattr(host, place)
    if not isinstance(names, Attached):
        raise RecipeError(
            f"{type(host).__name__} has an attribute `{place}` of its own, which layers put there need: rename it"
        )
    if name in names:
        raise RecipeError(f"{type(host).__name__} has a {name} already")
    if hasattr(host, name):  # of its own
        name = f"added_{name}"
    host.add_module(name, layer.train(host.training))
    names.append(name)


def innermost(module: nn.Module, end: int) -> nn.Module:
    """The first (0) or last (-1) module that runs in a row of modules, or the one inside of a compiled one; else the module itself."""
    while True:
        if type(module).__name__ == "OptimizedModule":
            module = next(module.children())
        elif isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
            module = module[end]
        else:
            return module


class Attached(list[str]):
    """The names of the layers that techniques have attached to a module."""


def _run_attached(host: nn.Module, inputs: object, output: Any) -> Any:
    if type(output) is tuple and output:
        return (_run_attached(host, inputs, output[0]), *output[1:])
    for name in host.attached:  # type: ignore[union-attr]
        output = getattr(host, name)(output)
    return output


def _run_before(host: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    first, *others = inputs
    for name in host.attached_before:  # type: ignore[union-attr]
        first = getattr(host, name)(first)
    return (first, *others)


def expect_training(option: str, model: nn.Module, modules: Iterable[nn.Module]) -> None:
    """Refuse a model all of whose places are in evaluation mode, in which a layer that is attached to them does nothing."""
    if not any(module.training for module in modules):
        raise RecipeError(
            f"{option}: the places of {type(model).__name__} where it acts are in evaluation mode, in which nothing is dropped: call "
            f"its train() first"
        )


def attached_to(host: nn.Module) -> list[nn.Module]:
    """The layers that techniques have attached to a module."""
    return [getattr(host, name) for names in _lists_of(host) for name in names]


def _lists_of(host: nn.Module) -> list[Attached]:
    found = (getattr(host, place, None) for place in ("attached_before", "attached"))
    return [names for names in found if isinstance(names, Attached)]


@contextmanager
def without_attached(model: nn.Module) -> Iterator[None]:
    """Leave out what techniques have attached, so that the model is as it was given."""
    lists = [names for module in model.modules() for names in _lists_of(module)]
    kept = [list(names) for names in lists]
    try:
        for names in lists:
            names.clear()
        yield
    finally:
        for names, before in zip(lists, kept, strict=True):
            names[:] = before


def own_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a model is made of, with their names, without layers that techniques have attached."""
    attached = {id(part) for host in model.modules() for layer in attached_to(host) for part in layer.modules()}
    return ((name, module) for name, module in model.named_modules() if id(module) not in attached)


@dataclass(frozen=True)
class Call:
    """One call of a leaf module during a forward pass, with the tensors that went in and came out.

    `node` is where the output was made in the graph that autograd kept, if it was asked to keep one.
    """

    name: str
    module: nn.Module
    input: Tensor
    output: Tensor
    node: Any = None


def trace(model: nn.Module, shape: Sequence[int], graph: bool = False) -> tuple[list[Call], object]:
    """The calls of leaf modules in a forward pass of two blank samples, in order, and what the model returned.

    A module is as much a leaf with layers attached to it as without, and its output is its own, before they run: techniques find
    the same calls whoever was there before. Of what is attached only norm layers are among the calls.

    With `graph`, autograd's graph is kept: it tells also what runs between modules, such as `torch.relu` or `+`.
    """
    calls: list[Call] = []
    handles = []
    own = {id(module) for _, module in own_modules(model)}
    for name, module in model.named_modules():
        leaf = len(list(module.children())) == len(attached_to(module))
        if isinstance(module, NORMS) or (id(module) in own and (isinstance(module, WEIGHTED) or leaf)):

            def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                    calls.append(Call(name, module, inputs[0], output, output.grad_fn))

            handles.append(module.register_forward_hook(remember, prepend=True))
    try:
        result = blank_pass(model, shape, graph, calls.clear)
    finally:
        for handle in handles:
            handle.remove()
    return calls, result


def blank_pass(model: nn.Module, shape: Sequence[int], graph: bool, again: Callable[[], None] = lambda: None) -> object:
    """What a model returns for two blank samples in evaluation mode; `again` is called where they must be tokens."""
    with evaluation_mode(model), torch.set_grad_enabled(graph):
        place = next((weight for weight in model.parameters() if weight.is_floating_point()), torch.zeros(()))
        if isinstance(shape, Mapping):
            named = blank(shape, 2, place.device, place.dtype)
            return model(each(named, lambda x: x.requires_grad_(graph).clone() if x.is_floating_point() else x))
        x = torch.zeros(2, *shape, device=place.device, dtype=place.dtype, requires_grad=graph)
        try:
            return model(x.clone() if graph else x)  # a model may write into its input, but not into a leaf of the graph
        except (RuntimeError, TypeError):
            if not takes_tokens(model):
                raise
            again()
            return model(x.detach().long())


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and each of its modules back to the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def is_expanded(value: Tensor) -> bool:
    """Whether a tensor has more entries than numbers in memory, as of expand(), so that nothing can be written into it."""
    return value.numel() * value.element_size() > value.untyped_storage().nbytes()


def written(buffers: Iterable[Tensor | None]) -> list[Tensor]:
    """Those of some buffers that are there and can be written into."""
    return [buffer for buffer in buffers if buffer is not None and not is_expanded(buffer)]


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put buffers, such as running statistics, back to what they were: a pass within leaves no trace in them."""
    kept = [
        (owner, dict(owner._buffers), [(buffer, buffer.clone()) for buffer in written(owner._buffers.values())])
        for owner in model.modules()
    ]
    try:
        yield
    finally:
        for owner, named, values in kept:
            for buffer, value in values:
                buffer.data.copy_(value)
            owner._buffers.clear()  # a pass may have replaced some, or made new ones
            owner._buffers.update(named)


def statistic_sites(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Where running statistics of floats are: name in the model, owner, name there. Their tensors may be replaced at any time.

    They are the buffers of norm layers and whatever is named running_…; other buffers, such as the vectors of a spectral
    norm, counters or fixed tables, are no statistics, and a mean of several of them means nothing.
    """
    for path, owner in model.named_modules():
        is_norm = isinstance(owner, NORMS)
        for name, buffer in owner.named_buffers(recurse=False):
            if buffer.is_floating_point() and (is_norm or name.startswith("running_")):
                yield f"{path}.{name}" if path else name, owner, name


def running_statistics(model: nn.Module) -> list[Tensor]:
    """The running statistics as they are now, which each process measures on its own samples: none in evaluation mode."""
    sites = [(owner, name) for _, owner, name in statistic_sites(model) if owner.training]
    return [owner.get_buffer(name) for owner, name in sites if not isinstance(owner, nn.SyncBatchNorm)]


def weight_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Linear, convolution, recurrent and attention layers, with their names."""
    kinds: tuple[type[nn.Module], ...] = (*WEIGHTED, *RECURRENT, nn.MultiheadAttention)
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            yield name, module
