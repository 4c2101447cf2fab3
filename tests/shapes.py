"""Shapes and types that plugins/ declares are checked while tests run, by jaxtyping and beartype.

The mathematics of a technique says `x: Float[Tensor, "samples *shape"]`. Users need neither library: the names are imported for type
checkers only, and annotations are not evaluated. Here a module of plugins/ is loaded with its annotated functions replaced by checked ones,
before another module can take the original. Inside of torch.compile the original is called.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any

PACKAGE = "plugins"
KINDS = ("Float", "Int", "Bool", "Num", "Inexact", "Complex", "Shaped")
DECLARED = re.compile(rf"\b({'|'.join(KINDS)})\[")


def declares_shapes(function: Callable[..., Any]) -> bool:
    """Whether a function's annotations name the shape of a tensor."""
    annotations = getattr(inspect.unwrap(function), "__annotations__", {})
    return any(DECLARED.search(text) for text in annotations.values() if isinstance(text, str))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which raises `jaxtyping.TypeCheckError` for arguments or a result that are not as declared."""
    import jaxtyping
    import torch
    from beartype import BeartypeConf, beartype

    inner = inspect.unwrap(function)
    known = {**{kind: getattr(jaxtyping, kind) for kind in KINDS}, **inner.__globals__}
    inner.__annotations__.update(typing.get_type_hints(inner, globalns=known))
    whole_numbers_are_floats = beartype(conf=BeartypeConf(is_pep484_tower=True))
    strict = jaxtyping.jaxtyped(typechecker=whole_numbers_are_floats)(function)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return (function if torch.compiler.is_compiling() else strict)(*arguments, **named)

    return call


class Loader(SourceFileLoader):
    """Loads a module, and checks its functions from then on."""

    def exec_module(self, module: types.ModuleType) -> None:
        """As usual, and replace what declares shapes."""
        super().exec_module(module)
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) and value.__module__ == module.__name__ and declares_shapes(value):
                setattr(module, name, checked(value))


class Finder(MetaPathFinder):
    """Has modules of plugins/ loaded so."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None) -> ModuleSpec | None:
        """The usual place, with another loader."""
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """From now on; what is loaded already stays as it is."""
    assert PACKAGE not in sys.modules, "a module of plugins/ was loaded before its shapes could be checked"
    sys.meta_path.insert(0, Finder())
