"""The lowest versions that pyproject.toml admits, for one run of the tests with them.

    python tests/lowest_versions.py           prints a requirement a line: what users get without extras, and what tests need
    python tests/lowest_versions.py --tests   prints the tests that are run with them

`make lowest` installs them into a virtual environment of their own, and runs a selection of the tests there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
TESTS = (  # one or two minutes; without what needs an extra; from the command line down to each technique, with what the libraries give and take
    "tests/plugins",
    "tests/recipes/config/test_catalogue.py",
    "tests/recipes/engine/test_checkpoint.py",
    "tests/recipes/engine/test_module.py",
    "tests/recipes/compare/test_comparison.py",
    "tests/recipes/compare/test_figure.py",
    "tests/recipes/run/test_loggers.py",
    "tests/recipes/run/test_run.py",
    "tests/recipes/cli/test_train.py",
)
FOR_TESTS = ("pytest", "pytest-xdist", "hypothesis", "jaxtyping", "beartype")


def lowest(requirements: Iterable[str]) -> Iterator[str]:
    """Each requirement with its lower bound as the only version.

    Raises:
        ValueError: one has no lower bound, so that nobody knows with which versions it works.
    """
    for text in requirements:
        requirement = Requirement(text)
        bounds = [each.version for each in requirement.specifier if each.operator in (">=", "==", "~=")]
        if len(bounds) != 1:
            raise ValueError(f"{text} has no lower bound: write {requirement.name}>=VERSION")
        marker = f" ; {requirement.marker}" if requirement.marker else ""
        yield f"{requirement.name}=={bounds[0]}{marker}"


def requirements(pyproject: dict[str, Any]) -> list[str]:
    """What is installed without extras, and those of the extra `dev` that the tests cannot do without."""
    project = pyproject["project"]
    tools = {Requirement(text).name: text for text in project["optional-dependencies"]["dev"]}
    return [*project["dependencies"], *(tools[name] for name in FOR_TESTS if name in tools)]


def read() -> dict[str, Any]:
    """What stands in pyproject.toml."""
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    print("\n".join(TESTS if "--tests" in sys.argv else lowest(requirements(read()))))
