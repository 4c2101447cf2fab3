"""All classes of the project by one name each: `from lightning_recipes import RecipeModule, Dropout, SAM, FGSM`.

They work on any `nn.Module` and any loader, in a script and in a notebook. A name is imported when it is asked for: the package by
itself is there at once, without torch. `__init__.pyi` says which names there are and where they stand.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_recipes.own import expect_own, told


def _listed() -> dict[str, str]:
    """Each name and the module in which it stands, as type checkers read it."""
    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {name.name: str(node.module) for node in found for name in node.names}


PLACES = _listed()
__all__ = sorted(PLACES)


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        from difflib import get_close_matches

        near = get_close_matches(name, PLACES, 1)
        raise AttributeError(f"lightning_recipes has no {name}" + (f"; did you mean {near[0]}?" if near else ""))
    expect_own()
    with told():
        found = getattr(import_module(PLACES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
