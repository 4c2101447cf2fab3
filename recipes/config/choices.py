"""Which options a run was made of, read from what it keeps: its words and its config, not what can be imported here.

A run may use options of a package that is not installed here, or of a config folder that is not named. Nothing here imports
torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.tree import option_names

NOT_CHOSEN = ("recipe", "hydra")
NAME = re.compile(r"[\w.-]+", re.ASCII)


def choices(catalogue: Catalogue, config: Mapping[str, Any], command: Iterable[str] = ()) -> dict[str, list[str]]:
    """The names of the chosen options by group.

    Of a group that takes several, the config has them by name. Of another one the last word that names one says it; where none
    does, the option of the catalogue whose class the config names, or else that class, or its module where that has the same name.

    Args:
        catalogue: knows the options that are installed here.
        config: of the run.
        command: the words of the run.
    """
    words = _words(command)
    recipe = words.pop("recipe", None)
    by_recipe: Mapping[str, Sequence[str]] = {}
    with suppress(RecipeError):
        by_recipe = catalogue.recipe_choices(recipe) if recipe else {}
    found: dict[str, list[str]] = {}
    for group, node in config.items():
        if group in NOT_CHOSEN or not isinstance(node, Mapping) or not node:
            continue
        if "_target_" not in node:
            if all(isinstance(inner, Mapping) for inner in node.values()):
                found[group] = [str(name) for name in node]
            elif group in catalogue.groups:  # such as trainer, which is no class
                found[group] = list(_by_content(catalogue, group, node, words))
            continue
        said = words.get(group) or next(iter(by_recipe.get(group, ())), None)
        found[group] = (
            [said] if said and _may_be(catalogue, group, said, node) else list(_by_content(catalogue, group, node, words))
        )
    return found


def _words(command: Iterable[str]) -> dict[str, str]:
    """What the words choose, by key."""
    found = {}
    for word in command:
        key, _, value = word.lstrip("+").partition("=")
        value = value.strip("[]'\" ")
        if NAME.fullmatch(value):
            found[key] = value
    return found


def _may_be(catalogue: Catalogue, group: str, name: str, node: Mapping[str, Any]) -> bool:
    """Whether a node can be of this option: one that is not known here, or of the same class."""
    option = catalogue.groups.get(group, {}).get(name)
    return option is None or option.node.get("_target_") == node.get("_target_")


def _by_content(catalogue: Catalogue, group: str, node: Mapping[str, Any], words: Mapping[str, str]) -> Iterator[str]:
    with suppress(RecipeError, KeyError, AttributeError, TypeError):
        yield from option_names(catalogue, {group: node}).get(group, [])
        return
    if "_target_" not in node:
        if group in words:
            yield words[group]
        return
    module, _, name = str(node["_target_"]).rpartition(".")
    option = module.rpartition(".")[2]  # plugins.regularizer.weight_noise.WeightNoise
    yield option if option.replace("_", "").lower() == name.lower() else name
