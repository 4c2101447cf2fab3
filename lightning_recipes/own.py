"""Whether Python finds this project's own packages: `plugins` and `recipes` are names that others may have, too.

Nothing but the standard library is imported here, and nothing of those packages.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
OWN = ("plugins", "recipes")
MISTAKE = 2  # the exit code


def place_of(name: str) -> Path | None:
    """The folder or file that Python takes for a package; it is not imported."""
    if (module := sys.modules.get(name)) is not None:
        found = [*getattr(module, "__path__", ()), getattr(module, "__file__", None)]
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        found = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin]
    return next((Path(place).resolve() for place in found if place), None)


def expect_own() -> None:
    """End the program in one line if other packages stand where ours would be found.

    Raises:
        SystemExit: with exit code 2; the line is on standard error.
    """
    for name in OWN:
        if (place := place_of(name)) == ROOT / name:
            continue
        if place is None:
            refuse(f"its package {name} is not there: type pip install --force-reinstall lightning-recipes")
        refuse(
            f"Python finds another {name}, {place}, instead of {ROOT / name}: give that one another name, take {place.parent} off "
            f"Python's path (PYTHONPATH, or the folder of the script), or keep the two in virtual environments of their own"
        )


@contextmanager
def told() -> Iterator[None]:
    """Say what has happened where a module of ours cannot be imported because another package has written over it."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in OWN:
            raise
        refuse(
            f"{error.name} in {ROOT} is not ours: another package has written over it; give each a virtual environment of its own"
        )


def refuse(reason: str) -> NoReturn:
    """End the program."""
    print(f"error: lightning-recipes cannot start: {reason}", file=sys.stderr)
    sys.exit(MISTAKE)
