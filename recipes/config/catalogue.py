"""What can be chosen: groups, options and parameters, read from the config folders. Nothing here imports torch."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config import untrusted
from recipes.config.callback_names import instead_of
from recipes.config.quoting import show
from recipes.config.remembered import remembered
from recipes.config.spelling import suggest

FOLDER = Path(__file__).resolve().parents[2] / "conf"
ENTRY_POINTS = "lightning_recipes"
# groups in which nobody looks for a technique
NO_TECHNIQUES = ("data", "model", "trainer", "logger", "recipe")
WITHOUT_STEPS = (*NO_TECHNIQUES, "callback", "loss", "optimizer", "scheduler")
# what every technique that acts step by step takes (`Plugin.when`), with the default and the comment; no file repeats it
INHERITED: dict[str, tuple[Any, str]] = {"when": ([0.0, 1.0], "share of the training in which it acts, from and to, in [0, 1]")}
NOT_FOR_TRAINING = ("hydra", "study")  # folders of conf/ that are no groups of train.py


def warn(message: str) -> None:
    """Tell something in one line that does not end the program."""
    print(f"warning: {message}", file=sys.stderr)


@remembered
def read_yaml(path: Path) -> dict[str, Any]:
    """A config file of a folder that is trusted, as it stands, interpolations left alone; it may be a link. Not to be changed."""
    return untrusted.read_yaml(path.resolve(), clean=False)


@remembered
def read_text(path: Path) -> str:
    """The text of such a file."""
    return untrusted.read_text(path.resolve())


@dataclass(frozen=True)
class Option:
    """One file of a config group."""

    group: str
    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        """The file."""
        try:
            return read_text(self.path)
        except OSError as error:
            raise RecipeError(f"{self.path} cannot be read: {error.strerror}") from None

    @property
    def summary(self) -> str:
        """The file's first comment, which says what the option does."""
        return next((line for line in _header(self.text) if not line.startswith("@package")), "")

    @cached_property
    def wrapped(self) -> bool:
        """Whether the content lies below the option's own name, so that several options can be chosen together."""
        first = next((line for line in self.text.splitlines() if line.strip() and not line.startswith("#")), "")
        return first.split("#")[0].rstrip() == f"{self.name}:"

    @cached_property
    def content(self) -> dict[str, Any]:
        """What stands in the file."""
        content = read_yaml(self.path)
        node = (content.get(self.name) or {}) if self.wrapped else content
        if not isinstance(node, dict):
            raise RecipeError(f"{self.path} must hold keys with values below {self.name}, got {show(node)}")
        if not isinstance(node.get("_target_", ""), str):
            raise RecipeError(f"{self.path}: _target_ must be the name of a class, got {show(node['_target_'])}")
        entries = node.get("defaults", [])
        if not isinstance(entries, list) or not all(isinstance(entry, str | dict) for entry in entries):
            raise RecipeError(f"{self.path}: defaults must be a list of options, got {show(entries)}")
        return node

    @property
    def bases(self) -> list[Option]:
        """The options of the group that this one is a change of, named in its defaults."""
        names = [] if self.group == "recipe" else self.content.get("defaults", [])
        return [Option(self.group, name, self.path.with_name(f"{name}.yaml")) for name in names if name != "_self_"]

    @cached_property
    def node(self) -> dict[str, Any]:
        """`_target_` and the parameters with their defaults."""
        if not self.bases:
            return self.content
        inherited = {name: value for base in self.bases for name, value in base.node.items()}
        return inherited | {name: value for name, value in self.content.items() if name != "defaults"}

    @cached_property
    def comments(self) -> dict[str, str]:
        """The comment behind each parameter."""
        inherited = {name: comment for base in self.bases for name, comment in base.comments.items()}
        told = {name: comment for name, (_, comment) in INHERITED.items()}
        return told | inherited | dict(_comments(self.text, indent="  " if self.wrapped else ""))

    @property
    def parameters(self) -> dict[str, Any]:
        """What the file tells that can be set, with the defaults."""
        return {name: default for name, default in self.node.items() if not name.startswith("_")}

    @property
    def settable(self) -> dict[str, Any]:
        """The same with what techniques inherit; whether the class has a use for that is known once it is imported."""
        technique = self.group not in WITHOUT_STEPS and "_target_" in self.node
        return {name: default for name, (default, _) in INHERITED.items() if technique} | self.parameters


own_options: dict[tuple[str, str], Option] = {}  # classes that were typed, by group and name: see `recipes/config/own.py`


class Catalogue:
    """All groups and their options, from this project's config folder, those of installed packages, and classes that were typed.

    `groups[GROUP][OPTION]` is an :class:`Option`; `defaults` has the option of each group that every run has one of;
    `keys` and `comments` are the top-level keys and what is said about groups and keys.
    """

    def __init__(self, folders: Sequence[tuple[str, Path]] = ()) -> None:
        self.groups: dict[str, dict[str, Option]] = {}
        for folder, owner in {folder: owner for owner, folder in [("", FOLDER), *folders]}.items():
            for option in options_in(folder):
                there = self.groups.setdefault(option.group, {})
                if option.name in there and owner:
                    warn(
                        f"{owner} brings {option.group}/{option.name}, which is there already: {there[option.name].path} is used"
                    )
                there.setdefault(option.name, option)
        for (group, name), option in own_options.items():
            self.groups[group].setdefault(name, option)
        primary = dict(read_yaml(FOLDER / "train.yaml"))
        self.defaults: dict[str, str | None] = {}
        for entry in primary.pop("defaults"):
            if isinstance(entry, dict):
                self.defaults |= {group: name for group, name in entry.items() if not group.startswith("override")}
        for group in self.defaults:
            self.groups.setdefault(group, {})
        primary.pop("hydra")
        self.keys = primary

    @cached_property
    def comments(self) -> dict[str, str]:
        """One line about each group and each top-level key."""
        text = read_text(FOLDER / "train.yaml")
        added = re.findall(r"^# \+(\w+): (.*)$", text, re.MULTILINE)
        return dict(added) | dict(_comments(text, "  - ")) | dict(_comments(text, ""))

    def many(self, group: str) -> bool:
        """Whether several options of the group can be chosen together."""
        return any(option.wrapped for option in self.groups[group].values())

    def option(self, group: str, name: str) -> Option:
        """The option, or an error with the nearest name."""
        if name in self.groups[group]:
            return self.groups[group][name]
        if not name:
            raise RecipeError(f"{group}= names no option; there is {', '.join(sorted(self.groups[group]))}")
        if group == "callback" and (reason := instead_of(name)):
            raise RecipeError(f"{group} has no option {name}: {reason}")
        for other, options in self.groups.items() if group not in NO_TECHNIQUES else ():
            if name in options and other not in self.defaults:  # sought in the wrong group of techniques
                raise RecipeError(f"{group} has no option {name}; did you mean {self.spelling(other, name)}?")
        raise RecipeError(f"{group} has no option {name}; {suggest(name, self.groups[group], self.spelling(group, '{}'))}")

    def spelling(self, group: str, name: str) -> str:
        """How an option is written on the command line."""
        return f"{group}={name}" if group in self.defaults else f"+{group}={name}"

    def group(self, name: str, rest: str = "") -> dict[str, Option]:
        """A group's options, or an error with the nearest name."""
        if name not in self.groups:
            raise RecipeError(f"there is no group {name}; {suggest(name, self.groups, '{}' + rest.lower())}")
        return self.groups[name]

    def recipe_choices(self, name: str) -> dict[str, list[str]]:
        """The options that a recipe chooses, group by group."""
        choices: dict[str, list[str]] = {}
        for entry in self.option("recipe", name).node.get("defaults", []):
            if isinstance(entry, str) and entry != "_self_":
                choices |= self.recipe_choices(entry.removeprefix("/recipe/"))
            elif isinstance(entry, dict):
                for group, names in entry.items():
                    group = group.removeprefix("override ").strip().removeprefix("/")
                    choices[group] = names if isinstance(names, list) else [] if names is None else [names]
        return choices

    def recipe_values(self, name: str) -> dict[str, Any]:
        """The values that a recipe sets, group by group."""
        content = dict(self.option("recipe", name).node)
        for entry in content.pop("defaults", []):
            if isinstance(entry, str) and entry != "_self_":
                content = self.recipe_values(entry.removeprefix("/recipe/")) | content
        return content


def options_in(folder: Path) -> Iterator[Option]:
    """The options of a config folder."""
    for group in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        if group.isidentifier() and group not in NOT_FOR_TRAINING:
            place = folder / group
            for file in sorted(os.listdir(place)):
                if file.endswith(".yaml") and not file.startswith((".", "_")):
                    yield Option(group, file.removesuffix(".yaml"), place / file)


def _header(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").strip()


def _comments(text: str, indent: str) -> Iterator[tuple[str, str]]:
    for name, comment in re.findall(rf"^{indent}(\w+):[^#\n]*(?:#[ ]*(.*))?$", text, re.MULTILINE):
        if not name.startswith("_"):
            yield name, comment


def installed_folders() -> list[tuple[str, Path]]:
    """The config folders that installed packages bring, with the names of their entry points."""
    found = []
    for name, value in installed_entries():
        folder = package_folder(value)
        if folder is None:
            warn(f"the entry point {name} of group {ENTRY_POINTS} names {value}, where no config folder is")
        else:
            found.append((name, folder))
    return found


def installed_entries() -> Sequence[tuple[str, str]]:
    """Name and value of the entry points of packages that bring options."""
    return _entries(tuple(sys.path))


@cache  # a file of each installed package is read
def _entries(path: Sequence[str]) -> Sequence[tuple[str, str]]:
    return [(entry.name, entry.value) for entry in entry_points(group=ENTRY_POINTS)]


def package_folder(name: str) -> Path | None:
    """The config folder in a package, or the package that is one. The package is not imported, it may be slow."""
    top, *rest = name.partition(":")[0].split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for location in (spec and spec.submodule_search_locations) or []:
        package = Path(location, *rest)
        for folder in (package / "conf", package):
            if folder.is_dir() and next(options_in(folder), None):
                return folder
    return None
