"""From the words of a command line to a checked config. Nothing here imports torch: a mistake is told at once.

Hydra accepts much that cannot be right: an unknown key behind a plus, text for a number, two ways of choosing a group
of which it drops one. So the words are checked against the catalogue before Hydra composes them, and the composed config
once more, because recipes set values too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from plugins.errors import RecipeError
from recipes.config.catalogue import FOLDER, INHERITED, Catalogue
from recipes.config.choosing import NotChosen, check_names, check_value, join_additions, recipe_of, select
from recipes.config.errors import one_line
from recipes.config.launchers import offer_launchers
from recipes.config.nothing import NONE, is_nothing, offer
from recipes.config.parsing import parse
from recipes.config.searching import InstalledConfigs
from recipes.config.settings import INSTEAD, check_settings, expect_settings
from recipes.config.spelling import suggest
from recipes.config.syntax import expand, without_globs
from recipes.config.tree import check_tree
from recipes.config.weights import prepare_as_weights_expect
from recipes.config.words import expect_at_work, expect_once, expect_repeatable, expect_search, readable

FORCED = "++"  # before a word, which Hydra then takes whatever is there
OF_INHERITED = re.compile(rf"(?!hydra\.)\w+(?:\.\w+)?\.(?:{'|'.join(INHERITED)})=")


@dataclass(frozen=True)
class Checked:
    """Words that have been looked at.

    Attributes:
        words: for Hydra.
        config: what Hydra makes of them, of a sweep of those of its first job.
    """

    words: list[str]
    config: DictConfig


def check(catalogue: Catalogue, words: Sequence[str], multirun: bool = False, trains: bool = True) -> list[str]:
    """Raise :class:`RecipeError` unless the words give a config that can run; returns the words for Hydra."""
    return compose_checked(catalogue, words, multirun, trains).words


def compose_checked(catalogue: Catalogue, words: Sequence[str], multirun: bool = False, trains: bool = True) -> Checked:
    """Raise :class:`RecipeError` unless the words give a config that can run; returns them with what they are composed to.

    Of a sweep, every value is checked once, beside the first values of the others. Where nothing is trained, but the config
    shown, settings of a sweep need none.
    """
    overrides = _with_plus(catalogue, without_globs(parse(catalogue, words)))
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
    expect_settings(overrides, settings_of_hydra)
    values = [expand(override) for override in overrides]
    for override in (override for expanded in values for override in expanded):
        check_names(catalogue, override, overrides)
    expect_repeatable([override for expanded in values for override in expanded], multirun)
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
    configs = [
        _resolve(catalogue, [str(override.input_line) for override in variant], job)[0]
        for composing, variant, _ in fitting
        if composing
    ]
    swept = {override.key_or_group for override in joined if override.is_sweep_override()}
    return Checked([_for_hydra(override, swept) for override in joined], configs[0])


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
    return f"{FORCED}{line}" if plain and {head, "recipe"} & swept else forced([line])[0]


def forced(words: Sequence[str]) -> list[str]:
    """Words for Hydra, which knows of no parameter that techniques inherit: no option's file has it."""
    return [f"{FORCED}{word}" if OF_INHERITED.match(word) else word for word in words]


def as_given(words: Sequence[str]) -> list[str]:
    """Words that Hydra was handed, as they were before."""
    return [word.removeprefix(FORCED) for word in words]


def words_of_job(catalogue: Catalogue, words: Sequence[str]) -> list[str]:
    """The words of a sweep's job, without values for techniques that other jobs of the sweep have and it has not."""
    fit, _ = _that_fit(catalogue, parse(catalogue, as_given(words)))
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


def resolve(catalogue: Catalogue, words: Sequence[str], job: Sequence[str] = ()) -> dict[str, Any]:
    """The config that a run with checked words gets."""
    return _resolve(catalogue, words, job)[1]


def _resolve(catalogue: Catalogue, words: Sequence[str], job: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    config = compose([*words, *job])
    check_settings(config.hydra, bool(job))
    HydraConfig.instance().set_config(config)  # a value may refer to it: name=${hydra:job.num}
    try:
        return config, finish(catalogue, config, words)
    finally:
        HydraConfig.instance().cfg = None


def compose(words: Sequence[str]) -> DictConfig:
    """What Hydra makes of the words, with its own settings below `hydra`."""
    offer([FOLDER, *(folder for _, folder in InstalledConfigs.folders)])
    offer_launchers()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with initialize_config_dir(str(FOLDER), job_name="train", version_base="1.3"):
                return hydra.compose("train", forced([*map(readable, words)]), return_hydra_config=True)
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


def settings_of_hydra(words: Sequence[str]) -> DictConfig:
    """Hydra's own settings, with its options that the words choose; not to be changed: a process composes them once."""
    return _settings_of_hydra(tuple(words), tuple(InstalledConfigs.folders))


@cache
def _settings_of_hydra(words: tuple[str, ...], folders: tuple[tuple[str, Path], ...]) -> DictConfig:
    settings: DictConfig = compose(words).hydra
    return settings


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
    except MissingMandatoryValue as error:
        raise RecipeError(f"{error.full_key} has no default: type {error.full_key}=VALUE") from None
    except OmegaConfBaseException as error:
        raise RecipeError(f"{error.full_key}: {one_line(error).partition(' full_key')[0]}") from None
    check_tree(catalogue, plain, chosen)
    recipe = recipe_of(overrides)
    by_recipe = {**catalogue.recipe_choices(recipe), **catalogue.recipe_values(recipe)} if recipe else {}
    prepare_as_weights_expect(catalogue, plain, overrides, by_recipe)
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
