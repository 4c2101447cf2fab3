"""What can be chosen: groups, options and parameters, read from the config folders. Nothing here imports torch."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config import untrusted
from recipes.config.callback_names import instead_of
from recipes.config.errors import one_line as one_line
from recipes.config.spelling import nearest as nearest
from recipes.config.spelling import suggest as suggest

FOLDER = Path(__file__).resolve().parents[2] / "conf"
ENTRY_POINTS = "lightning_recipes"
# at the end of what a comment says of a parameter, before what it says of null or of further words
RANGE = re.compile(r"(?:in ([\[(])(-?[\d.]+), (-?[\d.]+)([\])])|, ([≥>]) (-?[\d.]+))(?=$|;| \|)")
LARGEST = 3.4e38  # number of 32 bits, in which models compute
# groups in which nobody looks for a technique
NO_TECHNIQUES = ("data", "model", "trainer", "logger", "recipe")
NOT_FOR_TRAINING = ("hydra", "study")  # folders of conf/ that are no groups of train.py


def warn(message: str) -> None:
    """Tell something in one line that does not end the program."""
    print(f"warning: {message}", file=sys.stderr)


def show(value: object) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower() if value is not None else "null"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(show, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("inf", ".inf").replace("nan", ".nan")  # as in YAML, and in the comments
    return str(value)


def quote(word: str) -> str:
    """A word for the shell, quoted where brackets or blanks would be taken amiss."""
    safe = word and all(letter.isalnum() or letter in "_-+=.,:/@%~^" for letter in word) and word[0] not in "~^"
    return word if safe else "'" + word.replace("'", "'\\''") + "'"


def path_word(path: object) -> str:
    """A path as a word for the shell, which no command takes for a flag."""
    return quote(f"./{path}" if str(path).startswith("-") else str(path))


def quoted(path: object) -> str:
    """A path as Hydra's grammar takes it, whatever is in its name."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return str(QuotedString(str(path), Quote.double).with_quotes())


def typed(key: str, path: object) -> str:
    """`KEY=PATH` as it is typed in a shell, quoted for Hydra and for the shell where they would take it amiss."""
    text = str(path)
    if not re.fullmatch(r"[\w./:@+-]+", text, re.ASCII):
        text = quoted(text)
    return quote(f"{key}={text}")


def expected(value: object, default: object, comment: str = "") -> str | None:
    """What a parameter must be, if `value` is not of its default's type; None if it is.

    An int is fine where a float is, a default of null admits anything, and so does the comment for words after a bar:
    `devices: 1 # how many | auto`. A bar and a bracket admit a list: `target: y # a name | [names]`. The elements of a list
    are of the type of the default's elements.
    """
    words = also(comment)
    if default is None or show(value) in words or (isinstance(default, str) and "${" in default):
        return None
    if _fits(value, default):
        return None
    if "| [" in comment:
        return (
            None
            if isinstance(value, list) and all(_fits(element, default) for element in value)
            else f"{_kind(default)} or a list"
        )
    if isinstance(default, str):
        return "one of " + ", ".join(listed) if (listed := choices(default, comment)) else _kind(default)
    return " or ".join([_kind(default), *words])


def also(comment: str) -> list[str]:
    """The words after a bar in a comment, which a parameter takes beside values of its default's type."""
    return re.findall(r"\|\s*([\w.+-]+)", comment)


def choices(default: object, comment: str) -> list[str]:
    """The words that a comment lists for a text: `mode: a # a | b`."""
    words = [word.strip() for word in comment.partition(";")[0].split("|")]
    return (
        words if isinstance(default, str) and len(words) > 1 and all(re.fullmatch(r"[\w.-]+", word) for word in words) else []
    )


def too_large(value: object) -> str | None:
    """What a number must be, if it is none that the computation can hold: not finite, or too large for its 32 or 64 bits."""
    if isinstance(value, float) and not abs(value) <= LARGEST:
        return "a finite number" if math.isnan(value) or math.isinf(value) else f"a number of at most {LARGEST:.4g}"
    return "a whole number of at most 18 digits" if isinstance(value, int) and abs(value) >= 10**18 else None


def outside(value: object, default: object, comment: str) -> str | None:
    """What a number must be, if it is outside of the range that the comment tells: `in [0, 1)`, `≥ 0` or `> 0`.

    Of a list each number must be in the range, and there must be as many as in the default. What is null by default and has a
    least number is a whole one.
    """
    if not (found := RANGE.search(comment)):
        return None
    opens, low, high, closes, sign, least = found.groups()
    counts = default is None and sign == "≥"  # steps, or pixels: what has no number by default

    def inside(number: object) -> bool:
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            return True
        if sign:
            if counts and not isinstance(number, int):
                return False
            return number > float(least) or (sign == "≥" and number == float(least))
        above = number > float(low) or (opens == "[" and number == float(low))
        return above and (number < float(high) or (closes == "]" and number == float(high)))

    words = found.group()
    if sign:
        words = f"{'a whole number' if counts else _kind(0.0 if default is None else default)} {sign} {least}"
    elif words == "in [0, 1]":
        words = "a probability between 0 and 1"
    words = " or ".join([words, *also(comment)])
    if isinstance(value, list) and isinstance(default, list):
        several = f"{len(default)} numbers {found.group()}"
        return None if len(value) == len(default) and all(map(inside, value)) else several
    return None if inside(value) else words


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, list):
        kinds = {_kind(element) for element in default}
        return isinstance(value, list) and (len(kinds) != 1 or all(_fits(element, default[0]) for element in value))
    return type(value) is type(default)


def _kind(default: object) -> str:
    if isinstance(default, list):
        kinds = {_kind(element) for element in default}
        plural = {"a whole number": " of whole numbers", "a number": " of numbers", "text": " of words"}
        return "a list" + (plural.get(kinds.pop(), "") if len(kinds) == 1 else "")
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}
    return names.get(type(default), "of another type")


def read_yaml(path: Path) -> dict[str, Any]:
    """A config file of a folder that is trusted, as it stands, interpolations left alone; it may be a link."""
    return untrusted.read_yaml(path.resolve(), clean=False)


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
            return untrusted.read_text(self.path.resolve())
        except OSError as error:
            raise RecipeError(f"{self.path} cannot be read: {error.strerror}") from None

    @property
    def summary(self) -> str:
        """The file's first comment, which says what the option does."""
        return next((line for line in _header(self.text) if not line.startswith("@package")), "")

    @property
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
        return inherited | dict(_comments(self.text, indent="  " if self.wrapped else ""))

    @property
    def parameters(self) -> dict[str, Any]:
        """What can be set, with the defaults."""
        return {name: default for name, default in self.node.items() if not name.startswith("_")}


class Catalogue:
    """All groups and their options, from this project's config folder and those of installed packages.

    `groups[GROUP][OPTION]` is an :class:`Option`; `defaults` has the option of each group that every run has one of;
    `keys` and `comments` are the top-level keys and what is said about groups and keys.
    """

    def __init__(self, folders: Sequence[tuple[str, Path]] = ()) -> None:
        self.groups: dict[str, dict[str, Option]] = {}
        for folder, owner in {folder: owner for owner, folder in [("", FOLDER), *folders]}.items():
            for option in _options(folder):
                there = self.groups.setdefault(option.group, {})
                if option.name in there and owner:
                    warn(
                        f"{owner} brings {option.group}/{option.name}, which is there already: {there[option.name].path} is used"
                    )
                there.setdefault(option.name, option)
        primary = read_yaml(FOLDER / "train.yaml")
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
        text = (FOLDER / "train.yaml").read_text(encoding="utf-8")
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


def _options(folder: Path) -> Iterator[Option]:
    for group in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        if group.isidentifier() and group not in NOT_FOR_TRAINING:
            for file in sorted(os.listdir(folder / group)):
                if file.endswith(".yaml") and not file.startswith((".", "_")):
                    yield Option(group, file.removesuffix(".yaml"), folder / group / file)


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
    for entry in entry_points(group=ENTRY_POINTS):
        folder = package_folder(entry.value)
        if folder is None:
            warn(f"the entry point {entry.name} of group {ENTRY_POINTS} names {entry.value}, where no config folder is")
        else:
            found.append((entry.name, folder))
    return found


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
            if folder.is_dir() and next(_options(folder), None):
                return folder
    return None
