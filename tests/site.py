"""The code that makes the documentation's site, which lies in no package."""

import importlib.util
from pathlib import Path
from types import ModuleType

SITE = Path(__file__).parents[1] / "docs" / "site"


def site(name: str) -> ModuleType:
    """A module of the site, loaded from its file."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", SITE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
