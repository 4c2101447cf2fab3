"""From the words of a command line to a checked config. Nothing here imports torch: a mistake is told at once.

Hydra accepts much that cannot be right: an unknown key behind a plus, text for a number, two ways of choosing a group
of which it drops one. So the words are checked against the catalogue before Hydra composes them, and the composed config
once more, because recipes set values too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plugins.errors import RecipeError
from recipes.config import untrusted
from recipes.config.allowed import keep_at_home
from recipes.config.catalogue import (
    FOLDER,
    Catalogue,
    Option,
    also,
    choices,
    expected,
    nearest,
    one_line,
    outside,
    package_folder,
    show,
    suggest,
    too_large,
)
from recipes.config.duration import seconds_of
from recipes.config.moved import renew
from recipes.config.nothing import NONE, is_nothing, may_be_nothing, offer
from recipes.config.settings import INSTEAD, check_settings, expect_settings
from recipes.config.untrusted import check_files
from recipes.config.words import cut, expect_at_work, expect_once, expect_search, meant, parse_word, readable

__all__ = [
    "Catalogue",
    "RecipeError",
    "change",
    "check",
    "compose",
    "finish",
    "option_names",
    "parse_word",
    "read_run",
    "resolve",
    "search_folders",
]

VALUE_OF_ANY_KIND = object()
FORCED = "++"  # before a word, which Hydra then takes whatever is there
MOST_JOBS = 1000  # of one word
ON_RESUME: tuple[str, ...] = (
    "max_epochs",
    "max_steps",
    "max_time",
    "name",
    "tags",
    "notes",
    "trainer",
    "logger",
    "data.path",
    "data.root",
)
ON_RESUME += ("explain",)
NOTHING = ("", NONE, "null", "off", "no", "false")  # what people write for no option of a group
TRACES = ("checkpoints/last.ckpt", "result.json")  # either shows that a run began in a folder
BEFORE = {"matmul_precision": "high"}  # what all runs had when the trainer had no such setting
ON_EVALUATION = ("inference", "data", "trainer")


# What Hydra searches


class InstalledConfigs(SearchPathPlugin):
    """The config folders of installed packages on Hydra's search path."""

    folders: Sequence[tuple[str, Path]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folders behind our own."""
        for owner, folder in self.folders:
            search_path.append(owner, f"file://{folder}")


def register(installed: Sequence[tuple[str, Path]]) -> None:
    """Make Hydra search these folders too."""
    InstalledConfigs.folders = installed
    offer([FOLDER, *(folder for _, folder in installed)])
    Plugins.instance().register(InstalledConfigs)


def search_folders(words: Iterable[str], config_dir: str | None) -> list[tuple[str, Path]]:
    """The config folders that `--config-dir` and `hydra.searchpath` name."""
    places = [config_dir] if config_dir else []
    for word in words:
        if word.startswith("hydra.searchpath="):
            value = parse_word(OverridesParser.create(), word).value()
            places += value if isinstance(value, list) else [str(value)]
    found = []
    for place in places:
        scheme, _, name = place.rpartition("://")
        folder = package_folder(name.replace("/", ".")) if scheme == "pkg" else Path(name)
        if folder is None or not folder.is_dir():
            raise RecipeError(f"there is no config folder {place}")
        found.append((place, folder.absolute()))
    return found


def searched_folders(sources: Iterable[Any]) -> list[tuple[str, Path]]:
    """The config folders, beside our own, that Hydra searched for a composed config, from its list of sources."""
    sources = [source for source in sources if source.provider not in ("hydra", "main", "schema")]
    found = [(s.provider, package_folder(s.path.replace("/", ".")) if s.schema == "pkg" else Path(s.path)) for s in sources]
    return [(provider, folder) for provider, folder in found if folder is not None]


# Words


class _Options:
    """What Hydra's parser asks for a glob."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def get_group_options(self, group: str, results_filter: object = None) -> list[str]:
        return sorted(self.catalogue.groups.get(group, {}))


def parse(catalogue: Catalogue, words: Iterable[str]) -> list[Override]:
    """The words as Hydra reads them."""
    words = list(words)
    parser = OverridesParser.create(config_loader=_Options(catalogue))  # type: ignore[arg-type]
    overrides = []
    for index, word in enumerate(words):
        try:
            if "=" not in word.lstrip("+~=") and not word.startswith("~"):
                shown = cut(word) if word.strip() else repr(word)
                raise RecipeError(f"{shown}: expected KEY=VALUE{_meant_by(catalogue, word)}")
            overrides.append(parse_word(parser, word))
        except RecipeError as error:
            if found := meant(words, index, lambda other: _could_be(catalogue, other)):
                raise RecipeError(f"{cut(word)}: cannot be read; did you mean {found}?") from None
            if "did you mean" in str(error) or "expected" in str(error):
                raise
            raise RecipeError(f"{error}{_must_be(catalogue, word)}") from None
    return overrides


def _could_be(catalogue: Catalogue, word: str) -> bool:
    """Whether a word is right by itself, as far as that can be said."""
    if "=" not in word:
        return False
    try:
        for override in expand(parse_word(OverridesParser.create(config_loader=_Options(catalogue)), word)):  # type: ignore[arg-type]
            check_names(catalogue, override)
            known = list(_defaults_of(catalogue, override.key_or_group))
            if known and not any(expected(override.value(), default, comment) is None for default, comment in known):
                return False
            if not known and override.key_or_group not in catalogue.groups and not override.is_hydra_override():
                return False
    except RecipeError:
        return False
    return True


def _defaults_of(catalogue: Catalogue, key: str) -> Iterator[tuple[Any, str]]:
    """The defaults and comments of a key, or of a parameter in the options that have it."""
    head, *path = key.split(".")
    if head in catalogue.keys and not path:
        yield catalogue.keys[head], catalogue.comments.get(head, "")
    for option in catalogue.groups.get(head, {}).values():
        names = path[1:] if option.wrapped and path[:1] == [option.name] else path
        if names and names[0] in option.parameters:
            yield option.parameters[names[0]], option.comments.get(names[0], "")


def _must_be(catalogue: Catalogue, word: str) -> str:
    """What the value of a word that cannot be read must be."""
    key = re.split(r"[\[=]", word.lstrip("+~"), maxsplit=1)[0].strip()
    kinds = dict.fromkeys(expected(object(), default, comment) for default, comment in _defaults_of(catalogue, key))
    if kinds and None not in kinds:
        return f"; {key} must be {' or '.join(map(str, kinds))}"
    if key in catalogue.groups:
        return f"; {key} must be one of {', '.join(catalogue.groups[key])}"
    return "; expected KEY=VALUE, with text in quotes: 'notes=\"…\"'" if "=" in word else ""


def _meant_by(catalogue: Catalogue, word: str) -> str:
    if word in catalogue.groups:
        return f"; write {catalogue.spelling(word, 'OPTION')}"
    for group, options in catalogue.groups.items():
        if word in options and word != NONE:
            return f"; did you mean {catalogue.spelling(group, word)}?"
    return f"; did you mean {word}=VALUE?" if word in catalogue.keys else ""


def expand(override: Override) -> list[Override]:
    """Every value of a sweep as an override of its own; of an interval both ends."""
    if not override.is_sweep_override():
        return [override]
    if override.is_interval_sweep():
        interval: Any = override.value()
        values = [str(interval.start), str(interval.end)]
    else:
        try:
            values = list(islice(override.sweep_string_iterator(), MOST_JOBS + 1))
        except (HydraException, ValueError, TypeError) as error:
            raise RecipeError(f"{override.input_line}: {one_line(error)}") from None
    if not values:
        raise RecipeError(f"{override.input_line} matches nothing")
    if len(values) > MOST_JOBS:
        raise RecipeError(f"{override.input_line}: more than {MOST_JOBS:,} values; take fewer")
    for value in values:
        if values.count(value) > 1 and not override.is_interval_sweep():
            raise RecipeError(f"{override.input_line}: {value} is given twice; leave one out")
    parser = OverridesParser.create()
    return [parse_word(parser, f"{override.get_key_element()}={value}") for value in values]


def names_of(catalogue: Catalogue, override: Override) -> list[str]:
    """The options that a group's override names."""
    if is_nothing(catalogue, override):
        return []
    value = override.value()
    return [str(name) for name in value] if isinstance(value, list) else [str(value)]


def check_names(catalogue: Catalogue, override: Override) -> None:
    """Raise for a group, an option or a key that is unknown, or that cannot be written this way."""
    key, line = override.key_or_group, override.input_line
    if override.is_hydra_override():
        return
    if override.package is not None:
        raise RecipeError(f"{line}: leave out @{override.package}, an option's place follows from its group")
    if key in catalogue.groups:
        _check_group(catalogue, override)
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
                raise RecipeError(f"{line}: did you mean {head}.{owners[0]}{rest}?")
            raise RecipeError(f"{head} has no option {path[0]}; {suggest(path[0], options, head + '.{}')}")
        if len(path) == 1:
            raise RecipeError(f"{line}: expected {head}.{path[0]}.PARAMETER=VALUE")


def _check_group(catalogue: Catalogue, override: Override) -> None:
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
    fitting = [name for name in catalogue.keys if _could_have(catalogue, name, given)]
    meant = nearest(key, [*fitting, *catalogue.groups]) or nearest(key, catalogue.keys)
    if meant in catalogue.groups:
        return RecipeError(f"there is no key {key}; did you mean {catalogue.spelling(meant, value)}?")
    if meant:
        return RecipeError(f"there is no key {key}; did you mean {meant}={value}?")
    return RecipeError(f"there is no key {key}; there is {', '.join(sorted(catalogue.keys))}")


def _could_have(catalogue: Catalogue, key: str, value: object) -> bool:
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


# Which options a run gets


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
        _check_key(catalogue, head, value)
        return
    there = list(chosen.get(head, []))
    if catalogue.many(head):
        name, *path = path
        place = f"{head}.{name}"
        if name not in there:
            add = f"+{head}={name}" if not there or head not in catalogue.defaults else f"{head}=[{','.join([*there, name])}]"
            raise NotChosen(f"{override.input_line}: {place} is not chosen; add {add}")
    else:
        if not there:
            owners = [option.name for option in catalogue.groups[head].values() if path[0] in option.parameters]
            add = catalogue.spelling(head, (owners or ["OPTION"])[0])
            raise NotChosen(f"{override.input_line}: no {head} is chosen; {'leave it out' if head in chosen else f'add {add}'}")
        name, place = there[0], head
    option = catalogue.option(head, name)
    if path[0] in catalogue.keys and path[0] not in option.parameters:  # such as trainer.max_epochs, as Lightning has it
        raise RecipeError(f"{place} has no parameter {path[0]}; did you mean {path[0]}={override.get_value_string()}?")
    _check_parameter(option, place, path[0])
    if override.is_add() and len(path) == 1:
        raise RecipeError(f"{override.input_line}: write {override.input_line[1:]}, without the plus")  # type: ignore[index]
    default: Any = option.parameters[path[0]]
    comment = option.comments.get(path[0], "")
    for part in path[1:]:
        if default is not None and not isinstance(default, Mapping):
            raise RecipeError(f"{override.input_line}: {place}.{path[0]} is {expected(None, default)}, it has no parts")
        default, comment = (default or {}).get(part), ""
    _check_type(override.key_or_group, value, default, comment)


def _check_parameter(option: Option, place: str, name: str) -> None:
    if name == option.name and name not in option.parameters:
        raise RecipeError(f"{place} has no parameter {name}; write {place}.PARAMETER=VALUE, without the option's name")
    if name not in option.parameters:
        of = f" of {option.name}" if place == option.group else ""
        raise NotChosen(f"{place} has no parameter {name}{of}; {suggest(name, option.parameters, place + '.{}')}")


def _check_key(catalogue: Catalogue, key: str, value: object) -> None:
    default = catalogue.keys[key]
    if default is None and isinstance(value, (list, Mapping)) and key != "max_time":
        raise RecipeError(f"{key} must be text, got {show(value)}")
    _check_type(key, value, default, catalogue.comments.get(key, ""))
    if key == "max_time" and value is not None and "${" not in str(value):
        seconds_of(key, value)


def _check_type(place: str, value: object, default: object, comment: str) -> None:
    if isinstance(value, str) and "${" in value:
        return  # checked once it is resolved
    if isinstance(value, str) and not value.strip() and default != "":
        raise RecipeError(f"{place} has no value: type {place}=VALUE, or leave it out")
    if must_be := expected(value, default, comment):
        received = repr(value) if isinstance(value, str) else show(value)
        close = next((word for word in choices(default, comment) if word.startswith(show(value))), None)
        fix = f"; did you mean {place}={close}?" if close and show(value) else ""
        raise RecipeError(f"{place} must be {must_be}, got {received}{fix}")
    if show(value) not in also(comment) and (reason := too_large(value) or outside(value, default, comment)):
        raise RecipeError(f"{place} must be {reason}, got {show(value)}")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if str(name).startswith("_"):
                raise RecipeError(f"{place}.{name} is not allowed")
            if isinstance(default, Mapping) and default:
                if name not in default:
                    raise RecipeError(f"{place} has no parameter {name}; {suggest(str(name), default, place + '.{}')}")
                _check_type(f"{place}.{name}", inner, default[name], "")
            else:
                _check_type(f"{place}.{name}", inner, None, "")
    elif isinstance(value, list):
        for inner in value:
            _check_type(place, inner, None, "")


# The whole command line


def check(catalogue: Catalogue, words: Sequence[str], multirun: bool = False, trains: bool = True) -> list[str]:
    """Raise :class:`RecipeError` unless the words give a config that can run; returns the words for Hydra.

    Of a sweep, every value is checked once, beside the first values of the others. Where nothing is trained, but the config
    shown, settings of a sweep need none.
    """
    overrides = _with_plus(catalogue, _without_globs(parse(catalogue, words)))
    expect_once(catalogue, overrides)
    expect_at_work(overrides, multirun or not trains)
    for override in overrides:
        if override.is_sweep_override() and override.is_hydra_override():
            raise RecipeError(f"{override.input_line}: expected one value, the settings of a sweep are no part of it")
        if override.is_sweep_override() and not multirun:
            key, value = override.get_key_element(), override.get_value_string()
            many = override.key_or_group in catalogue.groups and catalogue.many(override.key_or_group)
            fix = f"write {key}=[{value}]" if many else "put a text with commas in quotes"
            raise RecipeError(f"{override.input_line} is a sweep over several values: add -m, or {fix}")
    expect_search(overrides)
    expect_settings(overrides, compose)
    values = [expand(override) for override in overrides]
    for override in (override for expanded in values for override in expanded):
        check_names(catalogue, override)
    joined = join_additions(catalogue, overrides)
    values = [expand(override) for override in joined]
    first = [expanded[0] for expanded in values]
    variants = [(True, first)]
    for index, expanded in enumerate(values):
        group = joined[index].key_or_group in catalogue.groups
        variants += [(group, [*first[:index], other, *first[index + 1 :]]) for other in expanded[1:]]
    fitting = [(composing, *_that_fit(catalogue, variant)) for composing, variant in variants]
    somewhere = {override.key_or_group for _, fit, _ in fitting for override in fit}
    reasons = {key: error for _, _, others in fitting for key, error in others.items() if key not in somewhere}
    for key, error in reasons.items():  # of words that no job could take
        text, added, _ = str(error).partition("; add ")
        swept_too = any(other.is_sweep_override() and other.key_or_group == key.partition(".")[0] for other in joined)
        raise RecipeError(f"{text} in any of the jobs; leave it out") if added and swept_too else error
    job = ["hydra.job.num=0", "hydra.job.id='0'"] if multirun else []
    for composing, variant, _ in fitting:
        if composing:
            resolve(catalogue, [str(override.input_line) for override in variant], job)
    swept = {override.key_or_group for override in joined if override.is_sweep_override()}
    return [_for_hydra(override, swept) for override in joined]


def _that_fit(catalogue: Catalogue, overrides: Sequence[Override]) -> tuple[list[Override], dict[str, NotChosen]]:
    """The words of a job that say something about the options it has, and why the others do not."""
    chosen = select(catalogue, overrides)
    fit, others = [], {}
    for override in overrides:
        try:
            check_value(catalogue, chosen, override)
            fit.append(override)
        except NotChosen as error:
            others[override.key_or_group] = error
    return fit, others


def _for_hydra(override: Override, swept: set[str]) -> str:
    """A word for Hydra, which composes all words of a sweep, and of each job, whether the job has an option for them or not."""
    line, head = str(override.input_line), override.key_or_group.partition(".")[0]
    plain = override.type == OverrideType.CHANGE and head != override.key_or_group
    return f"{FORCED}{line}" if plain and {head, "recipe"} & swept else line


def words_of_job(catalogue: Catalogue, words: Sequence[str]) -> list[str]:
    """The words of a sweep's job, without values for techniques that other jobs of the sweep have and it has not."""
    fit, _ = _that_fit(catalogue, parse(catalogue, [word.removeprefix(FORCED) for word in words]))
    return [str(override.input_line) for override in fit]


def _with_plus(catalogue: Catalogue, overrides: Sequence[Override]) -> list[Override]:
    """`wrapper=none` as Hydra takes it where nothing has chosen a wrapper before."""
    recipe = recipe_of(override for override in overrides if not override.is_sweep_override())
    there = {*catalogue.defaults, *(catalogue.recipe_choices(recipe) if recipe in catalogue.groups["recipe"] else ())}
    parser = OverridesParser.create()
    return [
        override
        if override.is_add() or override.key_or_group in there or not is_nothing(catalogue, override)
        else parser.parse_override(f"+{override.key_or_group}={NONE}")
        for override in overrides
    ]


def _without_globs(overrides: Iterable[Override]) -> list[Override]:
    """Patterns as the options that they name: Hydra would find `none` among them, too."""
    plain = []
    for override in overrides:
        if isinstance(override.value(), Glob) and (found := list(override.sweep_string_iterator())):
            override = parse_word(OverridesParser.create(), f"{override.get_key_element()}={','.join(found)}")
        plain.append(override)
    return plain


def resolve(catalogue: Catalogue, words: Sequence[str], job: Sequence[str] = ()) -> dict[str, Any]:
    """The config that a run with checked words gets."""
    config = compose([*words, *job])
    check_settings(config.hydra, bool(job))
    HydraConfig.instance().set_config(config)  # a value may refer to it: name=${hydra:job.num}
    try:
        return finish(catalogue, config, words)
    finally:
        HydraConfig.instance().cfg = None


def compose(words: Sequence[str]) -> DictConfig:
    """What Hydra makes of the words, with its own settings below `hydra`."""
    offer([FOLDER, *(folder for _, folder in InstalledConfigs.folders)])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with initialize_config_dir(str(FOLDER), job_name="train", version_base="1.3"):
                return hydra.compose("train", [readable(word) for word in words], return_hydra_config=True)
    except AssertionError:
        raise RecipeError(
            "the config cannot be composed: in a recipe's defaults, `override` comes after what is added"
        ) from None
    except RecursionError:
        raise RecipeError("the config cannot be composed: the defaults of a recipe or an option lead back to itself") from None
    except RecipeError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise RecipeError(_composing(error)) from None


def _composing(error: BaseException) -> str:
    """Why a config cannot be composed, in our words where Hydra's advise what leads no further."""
    text, cause = one_line(error).partition(" Config search path:")[0], error.__cause__ or error.__context__
    if found := re.search(r"Could not find '(hydra/\S+)/(\S+)' Available options in '\S+': (.*)", text):
        group, name, options = found.groups()
        instead = INSTEAD.get(name) if group == "hydra/launcher" else None
        hint = f"type {group}={instead}" if instead else suggest(name, options.split(), group + "={}")
        return f"{group} has no option {name}; {hint}"
    if found := re.match(r"Could not override '(hydra\.[\w.]+)'. To append to your config use (\S+)", text):
        return f"{found[1]} has no value yet; write {found[2]}"
    if cause and (not str(error).strip() or text.startswith("Error merging override")):
        reason = one_line(cause).partition(" full_key:")[0]
        return f"{text.removeprefix('Error merging override ')}: {reason}" if str(error).strip() else reason
    return text.partition(" To append to your")[0]


def finish(catalogue: Catalogue, config: DictConfig, words: Sequence[str]) -> dict[str, Any]:
    """A composed config as plain data: recipe values that lost their option dropped, everything resolved and checked."""
    overrides = parse(catalogue, words)
    chosen = select(catalogue, overrides)
    raw: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    raw.pop("hydra", None)
    for override in overrides:
        if is_nothing(catalogue, override) and not chosen.get(override.key_or_group):
            raw.pop(override.key_or_group, None)  # with what a recipe sets there
    for group in catalogue.defaults:
        if group != "recipe":
            raw.setdefault(group, {})
    tree = OmegaConf.create(raw)
    _drop_replaced(catalogue, tree, overrides, chosen)
    try:
        plain: dict[str, Any] = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise RecipeError(f"{error.full_key}: {one_line(error).partition(' full_key')[0]}") from None
    check_tree(catalogue, plain, chosen)
    return plain


def _drop_replaced(
    catalogue: Catalogue, tree: DictConfig, overrides: Sequence[Override], chosen: Mapping[str, Sequence[str]]
) -> None:
    """Drop what a recipe sets for an option in whose place the command line puts another: Hydra would pass it on."""
    recipe = recipe_of(overrides)
    if recipe is None:
        return
    by_recipe, values = catalogue.recipe_choices(recipe), catalogue.recipe_values(recipe)
    for group in (
        {override.key_or_group for override in overrides if not override.is_add()} & set(values) & set(catalogue.groups)
    ):
        if group not in tree:
            continue
        if catalogue.many(group):
            tree[group] = {name: tree[group][name] for name in tree[group] if name in chosen[group]}
        elif list(chosen[group]) != by_recipe.get(group, [catalogue.defaults.get(group)]):
            tree[group] = catalogue.option(group, chosen[group][0]).node
            for override in overrides:
                if override.key_or_group.startswith(f"{group}."):
                    OmegaConf.update(tree, override.key_or_group, override.value(), force_add=True)


def check_tree(catalogue: Catalogue, tree: Mapping[str, Any], chosen: Mapping[str, Sequence[str]] | None = None) -> None:
    """Raise for anything in a config that the catalogue does not know, or that is not of its type.

    `chosen` are the options; where they are not known, as in the config of a finished run, the option is the one that
    has the node's `_target_`: nothing else can be named.
    """
    for name, value in tree.items():
        if name in catalogue.keys:
            _check_key(catalogue, name, value)
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
                _check_node(catalogue.groups[name][option], f"{name}.{option}", node)
        elif value or (chosen is not None and chosen.get(name)):
            options = [catalogue.option(name, n) for n in chosen[name]] if chosen else _options_with(catalogue, name, value)
            _check_node(options[0], name, value)


def _options_with(catalogue: Catalogue, group: str, node: Mapping[str, Any]) -> list[Option]:
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
            names[group] = list(node) if catalogue.many(group) else [_options_with(catalogue, group, node)[0].name]
    return names


def _check_node(option: Option, place: str, node: object) -> None:
    if not isinstance(node, Mapping):
        raise RecipeError(f"{place} must be a mapping, got {show(node)}")
    if node.get("_target_") != option.node.get("_target_"):
        raise RecipeError(f"{place}._target_ must be {option.node.get('_target_')}, got {node.get('_target_')}")
    for name, value in node.items():
        if name != "_target_":
            _check_parameter(option, place, name)
            _check_type(f"{place}.{name}", value, option.parameters[name], option.comments.get(name, ""))


# Runs that are there already


def read_run(catalogue: Catalogue, folder: Path) -> dict[str, Any]:
    """The config of a run folder, checked like a stranger's: nothing in it is resolved, and it names known options only."""
    path = folder / "config.yaml"
    check_files(folder)
    if not path.is_file() or not any((folder / trace).exists() for trace in TRACES):
        found = "there is no such folder" if not folder.is_dir() else "the folder has no such files"
        raise RecipeError(f"{folder} is no run: looked for config.yaml and {' or '.join(TRACES)}, but {found}")
    config = renew(untrusted.read_yaml(path))
    _refuse_interpolation(config, str(path))
    try:
        check_tree(catalogue, config)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    keep_at_home(config)
    missing = [name for name in catalogue.defaults if name not in config and name != "recipe"]
    if missing:
        raise RecipeError(f"{path} has no {', '.join(missing)}")
    settings = catalogue.groups["trainer"][catalogue.defaults["trainer"] or ""].content
    # a run that is older than a key, or than a setting of the trainer, has its default, or what there was before
    return deepcopy({**catalogue.keys, **config, "trainer": {**settings, **BEFORE, **config["trainer"]}})


def _refuse_interpolation(value: object, place: str) -> None:
    if isinstance(value, str) and "${" in value:
        raise RecipeError(f"{place}: {value} is refused, only plain values are allowed here")
    if isinstance(value, Mapping):
        for pair in value.items():
            _refuse_interpolation(list(pair), place)
    if isinstance(value, list):
        for element in value:
            _refuse_interpolation(element, place)


def change(
    catalogue: Catalogue, config: dict[str, Any], words: Sequence[str], allowed: Sequence[str], when: str
) -> dict[str, Any]:
    """The config of a run with some of its groups and values replaced, those that are `allowed`."""
    overrides = parse(catalogue, words)
    expect_once(catalogue, overrides)
    for override in overrides:
        if override.is_sweep_override():
            raise RecipeError(f"{override.input_line} is a sweep; {when} takes one value")
        check_names(catalogue, override)
        if not any(f"{override.key_or_group}.".startswith(f"{name}.") for name in allowed):
            raise RecipeError(f"{override.input_line}: cannot be changed on {when}; what can: {', '.join(allowed)}")
        _refuse_interpolation(override.value(), str(override.input_line))
    tree = OmegaConf.create(config)
    for override in sorted(overrides, key=lambda override: override.key_or_group not in catalogue.groups):
        key = override.key_or_group
        if key not in catalogue.groups:
            group, _, rest = key.partition(".")
            if group in catalogue.groups and not tree.get(group):
                raise RecipeError(f"{override.input_line}: no {group} is chosen; add {catalogue.spelling(group, 'OPTION')}")
            if group in catalogue.groups and catalogue.many(group) and rest.split(".")[0] not in tree[group]:
                raise RecipeError(f"{override.input_line}: {group}.{rest.split('.')[0]} is not chosen")
            OmegaConf.update(tree, key, override.value(), force_add=True)
        elif catalogue.many(key):
            nodes = {name: catalogue.groups[key][name].node for name in names_of(catalogue, override)}
            tree[key] = {**tree[key], **nodes} if override.type == OverrideType.ADD else nodes
        else:
            tree[key] = {} if is_nothing(catalogue, override) else catalogue.groups[key][names_of(catalogue, override)[0]].node
    changed: dict[str, Any] = OmegaConf.to_container(tree)  # type: ignore[assignment]
    changed = {name: node for name, node in changed.items() if node != {} or name in catalogue.defaults}
    check_tree(catalogue, changed)
    return changed
