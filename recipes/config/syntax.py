"""One word of the command line as Hydra reads it: its values, and the options that it names. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.errors import one_line
from recipes.config.nothing import is_nothing
from recipes.config.words import parse_word

MOST_JOBS = 1000  # of one word


class OptionNames:
    """What Hydra's parser asks for a glob."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def get_group_options(self, group: str, results_filter: object = None) -> list[str]:
        return sorted(self.catalogue.groups.get(group, {}))


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


def without_globs(overrides: Iterable[Override]) -> list[Override]:
    """Patterns as the options that they name: Hydra would find `none` among them, too."""
    plain = []
    for override in overrides:
        if isinstance(override.value(), Glob) and (found := list(override.sweep_string_iterator())):
            override = parse_word(OverridesParser.create(), f"{override.get_key_element()}={','.join(found)}")
        plain.append(override)
    return plain
