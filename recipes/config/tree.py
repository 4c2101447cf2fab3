"""A composed config, checked as a tree: which options made it, and whether each value fits. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue, Option
from recipes.config.choosing import check_key, check_parameter, unknown_key
from recipes.config.own import SOURCE, TARGET
from recipes.config.quoting import show
from recipes.config.spelling import suggest
from recipes.config.types import check_type


def check_tree(catalogue: Catalogue, tree: Mapping[str, Any], chosen: Mapping[str, Sequence[str]] | None = None) -> None:
    """Raise for anything in a config that the catalogue does not know, or that is not of its type.

    `chosen` are the options; where they are not known, as in the config of a finished run, the option is the one that
    has the node's `_target_`: nothing else can be named.
    """
    for name, value in tree.items():
        if name in catalogue.keys:
            check_key(catalogue, name, value)
        elif name not in catalogue.groups or name == "recipe":
            raise unknown_key(catalogue, name)
        elif not isinstance(value, Mapping):
            raise RecipeError(f"{name} must be a mapping, got {show(value)}")
        elif catalogue.many(name):
            for option, node in value.items():
                if option not in catalogue.groups[name]:
                    raise RecipeError(f"{name} has no option {option}; {suggest(option, catalogue.groups[name])}")
                if chosen is not None and option not in chosen.get(name, []):
                    raise RecipeError(
                        f"{name}.{option} has values, but is not chosen; choose it in the recipe, or leave it out there"
                    )
                check_node(catalogue.groups[name][option], f"{name}.{option}", node)
        elif value or (chosen is not None and chosen.get(name)):
            options = [catalogue.option(name, n) for n in chosen[name]] if chosen else options_with(catalogue, name, value)
            check_node(options[0], name, value)


def options_with(catalogue: Catalogue, group: str, node: Mapping[str, Any]) -> list[Option]:
    """The options of a group that a node can be of, the one whose parameters fit best first."""
    target = node.get("_target_")
    options = [option for option in catalogue.groups[group].values() if option.node.get("_target_") == target]
    if not options:
        raise RecipeError(f"{group}._target_ is {target}, which no option of {group} names")

    def misfit(option: Option) -> tuple[int, int, int]:
        other = [value for name, value in option.node.items() if node.get(name) != value]
        return len(set(node) ^ set(option.node)), sum(isinstance(value, str) for value in other), len(other)

    return sorted(options, key=misfit)


def option_names(catalogue: Catalogue, config: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of the chosen options, by group, read from their nodes in a config."""
    names = {}
    for group, node in config.items():
        if group in catalogue.groups and group != "recipe" and node:
            names[group] = list(node) if catalogue.many(group) else [options_with(catalogue, group, node)[0].name]
    return names


def check_node(option: Option, place: str, node: object) -> None:
    if not isinstance(node, Mapping):
        raise RecipeError(f"{place} must be a mapping, got {show(node)}")
    if node.get("_target_") != option.node.get("_target_"):
        raise RecipeError(f"{place}._target_ must be {option.node.get('_target_')}, got {node.get('_target_')}")
    for name, value in node.items():
        if name == SOURCE and isinstance(value, str):
            continue
        if name != TARGET:
            check_parameter(option, place, name)
            check_type(f"{place}.{name}", value, option.settable[name], option.comments.get(name, ""))
