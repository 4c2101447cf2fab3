"""Where Python finds a module, without importing it. Nothing here imports torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ENDINGS = (".py", "/__init__.py", ".pyi", "/__init__.pyi")


def beside(top: str) -> Path | None:
    """A file or package of this name in the working folder; a folder without Python in it is none."""
    found = part_of(Path.cwd(), top)
    return found if found is None or found.is_file() or next(found.glob("*.py"), None) else None


def installed(top: str) -> Path | None:
    """The file or package that Python finds elsewhere."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if top == "lightning_recipes" and spec.origin:  # whose names are listed beside it
        return Path(spec.origin).with_suffix(".pyi")
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or [])
    return next((Path(place) for place in places if place), None)


def part_of(folder: Path, name: str) -> Path | None:
    """A file or folder of this name in a folder."""
    found = [path for ending in ENDINGS if (path := Path(f"{folder / name}{ending}")).is_file()]
    return found[0] if found else folder / name if (folder / name).is_dir() else None
