"""What is told of an exception that the code of an option has raised."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from recipes.check.choice import target
from recipes.config.errors import of_own_code, own_place


def told(name: str, error: Exception) -> str:
    """The kind of an exception and what it says, behind the last line of the option's package that has led to it."""
    own = _place(name)
    if own_place(error, own) or isinstance(error, SyntaxError):
        return of_own_code(error, own)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{of_own_code(error)} ({last.filename}, line {last.lineno})"


def _place(name: str) -> Path | None:
    """Where the package of an option's class lies: a folder, or a file."""
    package = sys.modules.get(target(name).partition(".")[0])
    folders = [*getattr(package, "__path__", ())]
    file = folders[0] if folders else getattr(package, "__file__", None)
    return Path(file) if file else None
