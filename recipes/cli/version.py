"""What `--version` prints: the project, and the libraries on which a number depends. Nothing here imports them."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "lightning", "hydra-core")
ROOT = Path(__file__).resolve().parents[2]


def asked_version(words: Sequence[str]) -> bool:
    """Whether a command line asks for the version."""
    return "--version" in words


def versions() -> str:
    """A line for each."""
    lines = [f"lightning-recipes {_own()}"]
    for name in LIBRARIES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} is not installed")
    return "\n".join([*lines, f"python {platform.python_version()}"]) + "\n"


def _own() -> str:
    """The version of this source, which need not be what is installed."""
    project = ROOT / "pyproject.toml"
    if project.is_file() and (found := re.search(r'^version = "(.+)"', project.read_text(encoding="utf-8"), re.MULTILINE)):
        return found[1]
    return version("lightning-recipes")
