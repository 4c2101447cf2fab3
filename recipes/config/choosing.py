"""Which options and values the words choose, each checked by its name, its place and its kind. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from plugins.errors import RecipeError, expect_choice
from recipes.config.catalogue import INHERITED, Catalogue, Option
from recipes.config.duration import seconds_of
from recipes.config.nothing import NONE, is_nothing, may_be_nothing
from recipes.config.quoting import show
from recipes.config.spelling import nearest, suggest
from recipes.config.syntax import names_of
from recipes.config.types import VALUE_OF_ANY_KIND, check_type, expected

TUNED = ("lr", "batch_size")  # what finders find
NOTHING = ("", NONE, "null", "off", "no", "false")  # what people write for no option of a group


def check_names(catalogue: Catalogue, override: Override, beside: Sequence[Override] = ()) -> None:
    """Raise for a group, an option or a key that is unknown, or that cannot be written this way; `beside` are all words of the command."""
    key, line = override.key_or_group, override.input_line
    if override.is_hydra_override():
        return
    if override.package is not None:
        raise RecipeError(f"{line}: leave out @{override.package}, an option's place follows from its group")
    if key in catalogue.groups:
        check_group(catalogue, override)
        return
    head, *path = key.split(".")
    if override.is_delete():
        raise RecipeError(f"{line}: a key cannot be removed; give it another value")
    if not path:
        if head not in catalogue.keys:
            raise unknown_key(catalogue, head, override)
        if override.is_add():
            raise RecipeError(f"{line}: write {line[1:]}, without the plus")  # type: ignore[index]
        return
    if head in catalogue.keys:
        raise RecipeError(f"{line}: {head} has no parts; write {head}=VALUE")
    rest = "." + ".".join(path)
    options = catalogue.group(head, rest)
    if any(part.startswith("_") for part in path):
        raise RecipeError(f"{line}: {path[-1]} belongs to the option; choose another option of {head} instead")
    if catalogue.many(head):
        if path[0] not in options:
            owners = [option.name for option in options.values() if path[0] in option.parameters]
            if owners:
                typed = {
                    name for word in beside if word.key_or_group == head for name in re.findall(r"\w+", word.get_value_string())
                }
                likely = next((name for name in owners if name in typed), owners[0])
                raise RecipeError(f"{line}: did you mean {head}.{likely}{rest}?")
            raise RecipeError(f"{head} has no option {path[0]}; {suggest(path[0], options, head + '.{}')}")
        if len(path) == 1:
            raise RecipeError(f"{line}: expected {head}.{path[0]}.PARAMETER=VALUE")


def check_group(catalogue: Catalogue, override: Override) -> None:
    group, value, line = override.key_or_group, override.value(), override.input_line
    many = catalogue.many(group)
    if override.is_delete():
        fix = (
            f"leave it out, or write {group}=[] where a recipe has chosen some"
            if many
            else (f"leave it out, or choose another option of {group}: {', '.join(catalogue.groups[group])}")
        )
        raise RecipeError(f"{line}: a group cannot be removed; {fix}")
    if override.is_force_add():
        raise RecipeError(f"{line}: write {catalogue.spelling(group, show(value))}")
    if is_nothing(catalogue, override):
        return
    if value is None or (str(value).lower() in NOTHING and str(value) not in catalogue.groups[group]):
        if may_be_nothing(catalogue, group):
            fix = f"write {catalogue.spelling(group, NONE)} for none, or choose"
        elif group in catalogue.defaults and (default := catalogue.defaults[group]):
            fix = f"leave it out for {group}={default}, or choose"
        else:
            fix = "leave it out, or choose"
        raise RecipeError(f"{line}: {fix} one of {', '.join(catalogue.groups[group])}")
    if isinstance(value, dict):
        raise RecipeError(f"{line}: write {group}.{'OPTION.' if many else ''}PARAMETER=VALUE")
    if isinstance(value, list) and not many:
        raise RecipeError(
            f"{line}: {group} takes one option; write {catalogue.spelling(group, show(value[0]) if value else 'OPTION')}"
        )
    for name in names_of(catalogue, override):
        option = catalogue.option(group, name)
        if many and not option.wrapped:
            raise RecipeError(f"{option.path} must have its content below a key {name}, as the other options of {group} do")


def unknown_key(catalogue: Catalogue, key: str, override: Override | None = None) -> RecipeError:
    """The error about a top-level key that does not exist."""
    value = override.get_value_string() if override else "VALUE"
    for group, name in catalogue.defaults.items():
        if name and not catalogue.many(group) and key in catalogue.groups[group][name].parameters:
            return RecipeError(f"there is no key {key}; did you mean {group}.{key}={value}?")
    given: Any = VALUE_OF_ANY_KIND if override is None or override.is_sweep_override() else override.value()
    fitting = [name for name in catalogue.keys if could_have(catalogue, name, given)]
    meant = nearest(key, [*fitting, *catalogue.groups]) or nearest(key, catalogue.keys)
    if meant in catalogue.groups:
        return RecipeError(f"there is no key {key}; did you mean {catalogue.spelling(meant, value)}?")
    if meant:
        return RecipeError(f"there is no key {key}; did you mean {meant}={value}?")
    return RecipeError(f"there is no key {key}; there is {', '.join(sorted(catalogue.keys))}")


def could_have(catalogue: Catalogue, key: str, value: object) -> bool:
    """Whether a value is of the kind that a key has."""
    return value is VALUE_OF_ANY_KIND or expected(value, catalogue.keys[key], catalogue.comments.get(key, "")) is None


def join_additions(catalogue: Catalogue, overrides: Sequence[Override]) -> list[Override]:
    """`+regularizer=dropout +regularizer=l2` as one `+regularizer=[dropout,l2]`: written apart, Hydra refuses or drops one."""
    parser = OverridesParser.create()
    added: dict[str, list[Override]] = {}
    for override in overrides:
        if override.is_add() and override.key_or_group in catalogue.groups:
            added.setdefault(override.key_or_group, []).append(override)
    joined = []
    for override in overrides:
        together = added.get(override.key_or_group, []) if override.is_add() else []
        if len(together) > 1 and any(other.is_sweep_override() for other in together):
            raise RecipeError(
                f"{override.input_line}: write +{override.key_or_group} once, with a list for each job: [a,b],[a,c]"
            )
        if not together or together[0].is_sweep_override() or (len(together) == 1 and is_nothing(catalogue, override)):
            joined.append(override)
        elif override is together[0]:
            if len(together) > 1 and (nothing := [str(other.input_line) for other in together if is_nothing(catalogue, other)]):
                raise RecipeError(
                    f"{nothing[0]}: {' '.join(str(other.input_line) for other in together)} choose some; leave it out"
                )
            names = [name for other in together for name in names_of(catalogue, other)]
            many = catalogue.many(override.key_or_group)
            if len(names) > 1 and not many:
                raise RecipeError(
                    f"{together[1].input_line}: {override.key_or_group} takes one option, got {' and '.join(names)}"
                )
            joined.append(
                parser.parse_override(f"+{override.key_or_group}={'[' + ','.join(names) + ']' if many else names[0]}")
            )
    return joined


def recipe_of(overrides: Iterable[Override]) -> str | None:
    """The recipe that is chosen."""
    chosen = [override.value() for override in overrides if override.key_or_group == "recipe"]
    return str(chosen[-1]) if chosen and chosen[-1] is not None else None


def select(catalogue: Catalogue, overrides: Sequence[Override]) -> dict[str, list[str]]:
    """The options of each group, as Hydra will choose them; raises where it would refuse, or drop what was written."""
    chosen = {group: [name] if name else [] for group, name in catalogue.defaults.items() if group != "recipe"}
    recipe = recipe_of(overrides)
    by_recipe = catalogue.recipe_choices(recipe) if recipe else {}
    chosen |= by_recipe
    groups = [override for override in overrides if override.key_or_group in catalogue.groups]
    replaced = {override.key_or_group: override for override in groups if not override.is_add()}
    for group, override in replaced.items():
        if group == "recipe":
            continue
        names = names_of(catalogue, override)
        if group not in chosen and not is_nothing(catalogue, override):
            if not names:
                raise RecipeError(f"{override.input_line}: leave it out, no {group} is chosen")
            value = override.get_value_element_as_str()
            raise RecipeError(f"{override.input_line}: write +{group}={value}, with a plus; {group} has no default")
        chosen[group] = names
    for override in groups:
        group, line = override.key_or_group, override.input_line
        if not override.is_add():
            continue
        names = names_of(catalogue, override)
        if is_nothing(catalogue, override) and chosen.get(group) and group not in replaced:
            there = ",".join(chosen[group])
            raise RecipeError(f"{line}: write {line[1:]}, without the plus, in the place of {group}={there}")  # type: ignore[index]
        if group in replaced:
            both = [*names_of(catalogue, replaced[group]), *names]
            value = f"[{','.join(both)}]" if catalogue.many(group) else both[-1] if both else NONE
            raise RecipeError(f"{line}: {replaced[group].input_line} is there too; write {group}={value}")
        source = f"recipe={recipe} has chosen" if group in by_recipe else "every run has"
        if not catalogue.many(group) and (group in chosen or group == "recipe"):
            there = f" {group}={chosen[group][0]}" if chosen.get(group) and group in by_recipe else f" one {group}"
            raise RecipeError(f"{line}: write {group}={names[0]}, without the plus; {source}{there}")
        chosen[group] = [*chosen.get(group, []), *names]
    for group, names in chosen.items():
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(
                    f"{group}={name} is chosen twice; leave one out, and set values as {group}.{name}.PARAMETER=VALUE"
                )
    return chosen


class NotChosen(RecipeError):
    """A value for an option that a run does not have."""


def check_value(catalogue: Catalogue, chosen: Mapping[str, Sequence[str]], override: Override) -> None:
    """Raise for a parameter that the chosen options do not have, or a value that is not of its type."""
    if override.key_or_group in catalogue.groups or override.is_hydra_override():
        return
    head, *path = override.key_or_group.split(".")
    value: Any = override.value()
    if not path:
        check_key(catalogue, head, value)
        return
    there = list(chosen.get(head, []))
    if catalogue.many(head):
        name, *path = path
        place = f"{head}.{name}"
        if name not in there:
            add = f"+{head}={name}" if not there or head not in catalogue.defaults else f"{head}=[{','.join([*there, name])}]"
            fix = "leave it out" if head in chosen and not there else f"add {add}"  # none is typed
            raise NotChosen(f"{override.input_line}: {place} is not chosen; {fix}")
    else:
        if not there:
            owners = [option.name for option in catalogue.groups[head].values() if path[0] in option.parameters]
            add = catalogue.spelling(head, (owners or ["OPTION"])[0])
            raise NotChosen(f"{override.input_line}: no {head} is chosen; {'leave it out' if head in chosen else f'add {add}'}")
        name, place = there[0], head
    option = catalogue.option(head, name)
    if path[0] in catalogue.keys and path[0] not in option.settable:  # such as trainer.max_epochs, as Lightning has it
        raise RecipeError(f"{place} has no parameter {path[0]}; did you mean {path[0]}={override.get_value_string()}?")
    check_parameter(option, place, path[0])
    if override.is_add() and len(path) == 1:
        raise RecipeError(f"{override.input_line}: write {override.input_line[1:]}, without the plus")  # type: ignore[index]
    default: Any = option.settable[path[0]]
    comment = option.comments.get(path[0], "")
    for part in path[1:]:
        if default is not None and not isinstance(default, Mapping):
            raise RecipeError(f"{override.input_line}: {place}.{path[0]} is {expected(None, default)}, it has no parts")
        default, comment = (default or {}).get(part), ""
    check_type(override.key_or_group, value, default, comment)


def check_parameter(option: Option, place: str, name: str) -> None:
    if name == option.name and name not in option.parameters:
        raise RecipeError(f"{place} has no parameter {name}; write {place}.PARAMETER=VALUE, without the option's name")
    if name not in option.settable:
        of = f" of {option.name}" if place == option.group else ""
        likely = option.settable if nearest(name, option.settable) in INHERITED else option.parameters
        raise NotChosen(f"{place} has no parameter {name}{of}; {suggest(name, likely, place + '.{}')}")


def check_key(catalogue: Catalogue, key: str, value: object) -> None:
    default = catalogue.keys[key]
    if default is None and isinstance(value, (list, Mapping)) and key != "max_time":
        raise RecipeError(f"{key} must be text, got {show(value)}")
    check_type(key, value, default, catalogue.comments.get(key, ""))
    if key == "max_time" and value is not None and "${" not in str(value):
        seconds_of(key, value)
    if key == "tune":
        expect_choice(key, value if value is not None else TUNED[0], TUNED)
