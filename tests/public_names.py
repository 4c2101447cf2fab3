"""All names that a user types: options, parameters, keys, launchers' settings, flags, commands.

Each release keeps its names in tests/data/public_names/VERSION.txt; `python -m tests.public_names` writes the file of a release,
once. Until the next one CHANGELOG.md's section Unreleased names every difference, in backticks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "data" / "public_names"
CHANGELOG = ROOT / "CHANGELOG.md"
GONE = ("Removed", "Changed")  # sections in which a name that is no longer there can stand
NEW = ("Added", "Changed")


def public_names() -> list[str]:
    """All of them, sorted."""
    return sorted({*_of_config(), *_of_launchers(), *_of_commands()})


def _of_config() -> Iterator[str]:
    """`regularizer=dropout`, `regularizer.dropout.p`, `optimizer=adam: lr`, `seed`."""
    from recipes.config.catalogue import INHERITED, Catalogue

    catalogue = Catalogue()
    yield from catalogue.keys
    yield from INHERITED
    for group, options in catalogue.groups.items():
        for name, option in options.items():
            yield f"{group}={name}"
            if group == "recipe":  # what it sets are names of others
                continue
            for parameter in option.parameters:
                if not any(parameter in base.parameters for base in option.bases):
                    yield f"{group}.{name}.{parameter}" if option.wrapped else f"{group}={name}: {parameter}"


def _of_launchers() -> Iterator[str]:
    from recipes.config import launchers

    for name, settings in vars(launchers).items():
        if name.endswith("Conf") and (target := getattr(settings, "_target_", None)):
            launcher = f"hydra/launcher={target.rpartition('.')[2].removesuffix('Launcher').lower()}"
            yield launcher
            yield from (f"{launcher}: {key}" for key in _keys(settings))


def _keys(settings: Any) -> Iterator[str]:
    for field in fields(settings):
        inner = field.default_factory if isinstance(field.default_factory, type) else None
        if is_dataclass(inner):
            yield from (f"{field.name}.{key}" for key in _keys(inner))
        elif not field.name.startswith("_"):
            yield field.name


def _of_commands() -> Iterator[str]:
    from hydra._internal.utils import get_args_parser

    from recipes.cli import check, compare, flags

    of_training = [action for action in get_args_parser()._actions if action.dest not in flags.NOT_SUPPORTED]
    of_evaluation = [action for action in of_training if action.dest in flags.OF_EVALUATION]
    actions = {
        "train": of_training,
        "evaluate": of_evaluation,
        "predict": of_evaluation,
        "export": of_evaluation,
        "compare": compare._parser()._actions,
    }
    for command, known in actions.items():
        yield from (f"{command}.py {flag}" for action in known for flag in action.option_strings)
    yield from (f"check {flag}" for action in check.parser()._actions for flag in action.option_strings)
    scripts = re.search(r"^\[project\.scripts\]\n((?:[\w-].*\n)*)", (ROOT / "pyproject.toml").read_text() + "\n", re.MULTILINE)
    yield from (line.partition("=")[0].strip() for line in (scripts[1].splitlines() if scripts else ()))


def unexplained(before: Iterable[str], now: Iterable[str], changelog: str) -> list[str]:
    """What to write into the section Unreleased, a line for each name that differs from the last release and is not named there.

    The parameters of an option that is itself new or gone need no line of their own. Names may have wildcards, `optimizer=*: rates`.
    """
    before, now = set(before), set(now)
    sections = _unreleased(changelog)
    lines = []
    for names, others, places in ((now - before, before, NEW), (before - now, now, GONE)):
        text = "\n".join(sections.get(place, "") for place in places)
        for name in sorted(names):
            option = _option_of(name)
            told = any(fnmatchcase(name, pattern) for pattern in re.findall(r"`([^`\n]+)`", text) if pattern != "*")
            if not told and not (option in names and option not in others and option != name):
                lines.append(f"{name} is {'new' if places is NEW else 'gone'}: add a line with `{name}` under {places[0]}")
    return lines


def _option_of(name: str) -> str:
    """The option to which a parameter belongs; any other name itself."""
    if wrapped := re.fullmatch(r"(\w+)\.(\w+)\.\w+", name):
        return f"{wrapped[1]}={wrapped[2]}"
    return name.partition(": ")[0]


def _unreleased(changelog: str) -> dict[str, str]:
    """The text of section Unreleased, by heading."""
    found = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    parts = re.split(r"^### (\w+)\n", found[1] if found else "", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def released(changelog: str) -> str:
    """The last release in a changelog."""
    found = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert found, "CHANGELOG.md names no release"
    return found[1]


def write(folder: Path, version: str) -> None:
    """Keep the names of a release; those of an earlier one are what they were."""
    path = folder / f"{version}.txt"
    if path.exists():
        sys.exit(
            f"{path} is there already: name what differs in CHANGELOG.md's Unreleased, or give that section a version to release"
        )
    path.write_text("".join(f"{name}\n" for name in public_names()), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    write(FOLDER, released(CHANGELOG.read_text(encoding="utf-8")))
