"""What can be chosen, and how it is named: an option is "group/option"."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from plugins.base import Plugin
from plugins.declare import RUN_FOLDER
from recipes.config import catalogue as catalogue_module
from recipes.config.catalogue import FOLDER, Catalogue, Option, installed_folders
from recipes.config.searching import InstalledConfigs
from recipes.run.classes import find_class

NO_TECHNIQUES = (*catalogue_module.NO_TECHNIQUES, "callback")


@cache
def catalogue() -> Catalogue:
    """What can be chosen, with what packages bring and what was registered for Hydra."""
    return Catalogue([*installed_folders(), *InstalledConfigs.folders])


def options() -> list[str]:
    """Every technique of ours that a training may have, as "group/option"."""
    found = (
        f"{group}/{name}"
        for group, found in catalogue().groups.items()
        if group not in NO_TECHNIQUES
        for name, option in found.items()
        if option.path.is_relative_to(FOLDER)
    )
    return sorted(name for name in found if not getattr(find_class(target(name)), "for_finished", False))


def is_many(group: str) -> bool:
    """Whether several options of a group can be selected at once."""
    return catalogue().many(group)


def option_of(name: str) -> Option:
    """The file of an option."""
    group, option = name.split("/")
    return catalogue().groups[group][option]


def target(name: str) -> str:
    """The class that an option names."""
    return str(option_of(name).node["_target_"])


def select(names: Sequence[str]) -> list[str]:
    """The overrides that select options, as a user would type them."""
    chosen: dict[str, list[str]] = {}
    for name in names:
        group, option = name.split("/")
        chosen.setdefault(group, []).append(option)
    return [
        catalogue().spelling(group, found[0] if not is_many(group) else f"[{','.join(found)}]")
        for group, found in chosen.items()
    ]


def plugin_class(name: str) -> type[Plugin] | None:
    """The plugin class behind an option, if it is one."""
    found = find_class(target(name))
    return found if issubclass(found, Plugin) else None


def node_of(config: dict[str, Any], name: str) -> Any:
    """Where the parameters of a chosen option stand."""
    group, option = name.split("/")
    return config[group][option] if is_many(group) else config[group]


def place_of(name: str) -> str:
    """The words in front of a parameter of an option."""
    return name.replace("/", ".") if is_many(name.split("/")[0]) else name.split("/")[0]


def asks_for_run(name: str) -> list[str]:
    """The parameters of an option that are the folder of a trained run, or a file of its weights."""
    declared = getattr(plugin_class(name), "declared_parameters", {})
    return [parameter for parameter, held in declared.items() if held.words.startswith(RUN_FOLDER)]
