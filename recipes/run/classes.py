"""Classes that a config names, found and made. What it may name is limited: a config that comes with a run folder is not trusted."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from torch.utils.data import Dataset, IterableDataset

from plugins.errors import RecipeError
from recipes.config import own
from recipes.config.catalogue import installed_entries
from recipes.config.class_files import file_of
from recipes.config.errors import of_own_code
from recipes.config.quoting import show
from recipes.data.base import Data
from recipes.data.own import LoadersData, SamplesData

OWN = ("plugins", "recipes")
LIBRARIES = ("torch", "torchvision", "torchmetrics", "lightning", "timm")
WRAPPERS: dict[type, Callable[..., Data]] = {L.LightningDataModule: LoadersData, Dataset: SamplesData}


def find_class(target: str, base: type | None = None) -> type:
    """The class that `_target_` names: of this project, its libraries or an installed plugin package, or typed, and of kind `base`."""
    root = target.partition(".")[0]
    known = root in {*OWN, *LIBRARIES} or root in installed_roots()
    if not known and target not in own.trusted:
        raise RecipeError(
            f"_target_ {target} is refused: a config may name classes of {', '.join((*OWN, *LIBRARIES))}, of installed plugin packages, and "
            f"those that were typed"
        )
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name) if known else _imported(module_name), name)
    except RecipeError:
        raise
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise RecipeError(f"_target_ {target} names nothing that can be imported: {error}") from None
    if not inspect.isclass(found) or (base is not None and not issubclass(found, base)):
        raise RecipeError(f"_target_ {target} is refused: expected a class{f' of kind {base.__name__}' if base else ''}")
    return found


def installed_roots() -> set[str]:
    """The top packages of installed plugin packages."""
    return {value.partition(":")[0].partition(".")[0] for _, value in installed_entries()}


def _imported(module: str) -> Any:
    """A module of the user's own, from the working folder or from what is installed."""
    path = file_of(module).path
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # behind all else: it hides no library
    try:
        found = importlib.import_module(module)
    except RecipeError:
        raise
    except Exception as error:
        raise RecipeError(f"{path} cannot be imported: {of_own_code(error)}") from None
    if Path(str(found.__file__)).resolve() != path.resolve():
        raise RecipeError(f"{path} has the name of another module, {found.__file__}: give it another name")
    return found


def instantiate(node: Mapping[str, Any], base: type | None = None, **further: Any) -> Any:
    """The object that a config node describes."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise RecipeError(f"expected a config with _target_, got {node!r}")
    if base is None and of_library(node):  # a library has classes of all kinds, some of which start processes
        raise RecipeError(f"_target_ {node['_target_']} is refused: expected a class of {' or '.join(OWN)}")
    arguments = {name: value for name, value in node.items() if not name.startswith("_")}
    target = str(node["_target_"])
    found = find_class(target, base)
    taken = inspect.signature(found).parameters
    if "when" in arguments and "when" not in taken:
        raise RecipeError(
            f"when={show(arguments['when'])} is for techniques that act step by step, {found.__name__} does not: leave it out"
        )
    if "load_weights" not in taken:
        arguments.pop("load_weights", None)
    try:
        inspect.signature(found).bind(**arguments, **further)
    except TypeError as error:
        raise RecipeError(f"{target}: {error}") from None
    if target not in own.trusted or target.partition(".")[0] in {*OWN, *LIBRARIES}:
        return found(**arguments, **further)
    return made(found, arguments | further)


def made(kind: type, arguments: Mapping[str, Any]) -> Any:
    """An object of a class of the user's own; lists are tuples where its defaults are."""
    taken = inspect.signature(kind).parameters
    given = {
        name: tuple(value) if isinstance(value, list) and name in taken and isinstance(taken[name].default, tuple) else value
        for name, value in arguments.items()
    }
    try:
        return kind(**given)
    except RecipeError:
        raise
    except Exception as error:
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise RecipeError(f"{kind.__name__}({shown}) cannot be made: {of_own_code(error)}") from None


def of_library(node: Mapping[str, Any]) -> bool:
    """Whether a node names a class of a library."""
    return str(node.get("_target_")).partition(".")[0] in LIBRARIES


def make_data(node: Mapping[str, Any]) -> Data:
    """The data that a config node describes, not loaded yet: a `Data`, or what loads a LightningDataModule or a Dataset of the user's own."""
    target = str(node.get("_target_"))
    if target not in own.trusted or issubclass(found := find_class(target), Data):
        data: Data = instantiate(node, Data)
        return data
    if issubclass(found, IterableDataset):
        raise RecipeError(own.stream(target))
    wrapper = next((wrapper for kind, wrapper in WRAPPERS.items() if issubclass(found, kind)), None)
    if wrapper is None:
        raise RecipeError(
            f"data._target_={target}: expected {own.WANTED['data']}, got a class of {', '.join(each.__name__ for each in found.__bases__)}"
        )
    arguments = {name: value for name, value in node.items() if not name.startswith("_")}
    its = {name: arguments.pop(name) for name in list(arguments) if name in inspect.signature(found).parameters}
    return wrapper(make=lambda: made(found, its), **arguments)
