"""The options of a package, or of a folder of config files. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from plugins.errors import RecipeError
from recipes.config import own
from recipes.config.catalogue import ENTRY_POINTS, Catalogue, installed_entries, installed_folders, package_folder
from recipes.config.searching import register
from recipes.config.spelling import nearest

REFUSALS = "refusals.yaml"  # beside the groups of a package's options: what is known to be refused
NOT_CHECKED = ("trainer", "logger", "recipe", "callback")  # no techniques, models or data


@dataclass(frozen=True)
class Package:
    """Options that are checked beside ours."""

    name: str
    folder: Path  # of the config files

    @cached_property
    def options(self) -> list[str]:
        """Each as "group/option"."""
        groups = Catalogue([(self.name, self.folder)]).groups
        found = [
            f"{group}/{name}"
            for group, options in groups.items()
            if group not in NOT_CHECKED
            for name, option in options.items()
            if option.path.is_relative_to(self.folder)
        ]
        if not found:
            raise RecipeError(f"{self.name} brings no option to check: {self.folder}/GROUP/OPTION.yaml is one")
        return sorted(found)

    @cached_property
    def pins(self) -> dict[str, str] | None:
        """What it says is refused, by what excludes each other; None where it says nothing."""
        path = self.folder / REFUSALS
        if not path.is_file():
            return None
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(found, dict) or not all(isinstance(text, str) for pair in found.items() for text in pair):
            raise RecipeError(f"{path} must have lines GROUP/OPTION × GROUP/OPTION: words of the refusal")
        return found

    def open(self) -> None:
        """Let the options be found, by Hydra and in catalogues, and the classes that they name, as the name of the folder was typed."""
        from recipes.check.choice import catalogue  # loads torch

        own.learn([], [(self.name, self.folder)])
        folders = installed_folders()
        register(folders if self.folder in dict(folders).values() else [*folders, (self.name, self.folder)])
        catalogue.cache_clear()  # which may have been read without it


def find_package(name: str) -> Package:
    """The package of that name, that of its entry point or of its distribution, or the folder.

    Raises:
        RecipeError: there is none, with those that there are; or it has no config folder.
    """
    entries = {entry: (entry, value) for entry, value in installed_entries()}
    roots = {value.partition(":")[0].partition(".")[0]: (entry, value) for entry, value in entries.values()}
    wanted = name.replace("-", "_")
    found = entries.get(name) or entries.get(wanted) or roots.get(wanted)
    if found is not None:
        entry, value = found
        folder = package_folder(value)
        if folder is None:
            raise RecipeError(f"{name} names {value}, where no config folder is: a folder has GROUP/OPTION.yaml in it")
        return Package(entry, folder.resolve())
    if Path(name).is_dir():
        return Package(name, Path(name).resolve())
    close = nearest(wanted, list(entries))
    known = f"did you mean {close}?" if close else f"installed with options: {', '.join(sorted(entries)) or 'none'}"
    raise RecipeError(f"there is no package {name} with an entry point {ENTRY_POINTS}, and no such folder; {known}")
