"""The layers of a model from its input to its head, for what treats parameters by their depth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from torch import nn

from plugins.errors import RecipeError
from plugins.sites import NORMS

HEAD = "head"  # the last layer, whatever the model calls it
LOG_VARIANCES = "task_log_variances"  # a parameter of the model that belongs to its outputs
CONTAINERS: tuple[type[nn.Module], ...] = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class SideBySide(nn.Module):
    """A module whose children stand beside each other, as heads of several tasks do: one layer."""


def depths(model: nn.Module) -> dict[str, int]:
    """How many layers lie between each parameter, by name, and the head: 0 is the head.

    A layer is a child of the model that has weights, of a container or a row of blocks its entries; a norm layer, and what holds nothing else, belongs to the layer before it, and a
    parameter of the model itself, such as the positions of a transformer, to the first, but for the log variances of tasks, which belong to the head. They are in the
    order in which the model lists them. Shared parameters have the depth of their first place.
    """
    layers: list[list[str]] = []
    own: list[str] = []
    for prefix, module, direct in _layers(model, ""):
        names = [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=not direct)]
        if direct:
            own += names
        elif names and layers and _is_norm(module):
            layers[-1] += names
        elif names:
            layers.append(names)
    layers = layers or [[]]
    layers[0] += [name for name in own if not name.endswith(LOG_VARIANCES)]
    layers[-1] += [name for name in own if name.endswith(LOG_VARIANCES)]
    return {name: len(layers) - 1 - index for index, names in enumerate(layers) for name in names}


def _layers(module: nn.Module, prefix: str, whole: bool = True) -> Iterator[tuple[str, nn.Module, bool]]:
    """Layers, and modules of whose parameters only their own are meant; `whole` says that there are no weights beside the module."""
    if isinstance(module, SideBySide):
        yield prefix, module, False
        return
    inner = [(name, child) for name, child in module.named_children() if _has_weights(child)]
    yield prefix, module, True
    whole = whole and len(inner) == 1
    for name, child in inner:
        if isinstance(child, SideBySide) or _is_made_of_layers(child, whole):
            yield from _layers(child, f"{prefix}{name}.", whole)
        else:
            yield f"{prefix}{name}.", child, False


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _is_made_of_layers(module: nn.Module, whole: bool) -> bool:
    """Whether a child is no layer itself: a container, all that there is, a row of blocks of one class, or what holds such a row."""
    if isinstance(module, CONTAINERS) or (whole and any(True for _ in module.children())):
        return True
    rows = [[each for each in row.children() if _is_block(each)] for row in module.children()]
    if all(_is_block(child) and not isinstance(child, CONTAINERS) for child in module.children()):
        rows.append(list(module.children()))
    return any(len(row) > 1 and len({type(each) for each in row}) == 1 for row in rows)


def _is_block(module: nn.Module) -> bool:
    """Whether there are several layers in a module, not counting norm layers: a convolution with its norm is one."""
    return len(_but_norms(module)) > 1


def _is_norm(module: nn.Module) -> bool:
    """Whether there are norm layers alone in a module that has weights."""
    return not _but_norms(module)


def _but_norms(module: nn.Module) -> list[nn.Module]:
    """Parts of a module with parameters of their own, without norm layers."""
    return [
        part for part in module.modules() if any(True for _ in part.parameters(recurse=False)) and not isinstance(part, NORMS)
    ]


def meant_by(pattern: str, model: nn.Module, names: Iterable[str], depth: Mapping[str, int], parameter: str) -> list[str]:
    """The parameters of a model that a name of a module or parameter means, with wildcards; "head" means the last layer, whatever its name.

    Args:
        pattern: the name; of layers that were put in front of the model it need not tell.
        model: the model.
        names: of its parameters, each once.
        depth: of its parameters, as :func:`depths` tells.
        parameter: where the name was typed.

    Raises:
        RecipeError: it means none.
    """
    names = list(names)
    meant = [name for name in names if _fits(pattern, name)]
    if pattern == HEAD and not meant:
        meant = [name for name in names if depth.get(name) == 0]
    if not meant:
        while isinstance(inner := getattr(model, "model", None), nn.Module):  # without what was put in front of it
            model = inner
        children = ", ".join(name for name, child in model.named_children() if _has_weights(child))
        raise RecipeError(
            f"{parameter} names {pattern}, which no parameter of the model has; its parts are: {children}; head is the last"
        )
    return meant


def _fits(pattern: str, name: str) -> bool:
    """Whether a pattern names a parameter or a module around it."""
    parts = name.split(".")
    while True:
        if any(fnmatchcase(".".join(parts[: end + 1]), pattern) for end in range(len(parts))):
            return True
        if parts[0] != "model":
            return False
        parts = parts[1:]
