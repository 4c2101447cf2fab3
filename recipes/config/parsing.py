"""The words of a command line, read; what was meant by one that cannot be. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.choosing import check_names
from recipes.config.nothing import NONE
from recipes.config.syntax import OptionNames, expand
from recipes.config.types import expected
from recipes.config.words import cut, meant, parse_word


def parse(catalogue: Catalogue, words: Iterable[str]) -> list[Override]:
    """The words as Hydra reads them."""
    words = list(words)
    parser = OverridesParser.create(config_loader=OptionNames(catalogue))  # type: ignore[arg-type]
    overrides = []
    for index, word in enumerate(words):
        try:
            if "=" not in word.lstrip("+~=") and not word.startswith("~"):
                shown = cut(word) if word.strip() else repr(word)
                raise RecipeError(f"{shown}: expected KEY=VALUE{meant_by(catalogue, word)}")
            overrides.append(parse_word(parser, word))
        except RecipeError as error:
            if found := meant(words, index, lambda other: could_be(catalogue, other)):
                raise RecipeError(f"{cut(word)}: cannot be read; did you mean {found}?") from None
            if "did you mean" in str(error) or "expected" in str(error):
                raise
            raise RecipeError(f"{error}{_must_be(catalogue, word)}") from None
    return overrides


def could_be(catalogue: Catalogue, word: str) -> bool:
    """Whether a word is right by itself, as far as that can be said."""
    if "=" not in word:
        return False
    try:
        for override in expand(parse_word(OverridesParser.create(config_loader=OptionNames(catalogue)), word)):  # type: ignore[arg-type]
            check_names(catalogue, override)
            known = _kinds_of(catalogue, override.key_or_group)
            if known and not any(expected(override.value(), default, comment) is None for default, comment in known):
                return False
            if not known and override.key_or_group not in catalogue.groups and not override.is_hydra_override():
                return False
    except RecipeError:
        return False
    return True


def _kinds_of(catalogue: Catalogue, key: str) -> list[tuple[Any, str]]:
    """The defaults and comments that tell what may stand there: null tells nothing where another option has a value."""
    known = list(_defaults_of(catalogue, key))
    return [pair for pair in known if pair[0] is not None] or known


def _defaults_of(catalogue: Catalogue, key: str) -> Iterator[tuple[Any, str]]:
    """The defaults and comments of a key, or of a parameter in the options that have it."""
    head, *path = key.split(".")
    if head in catalogue.keys and not path:
        yield catalogue.keys[head], catalogue.comments.get(head, "")
    for option in catalogue.groups.get(head, {}).values():
        names = path[1:] if option.wrapped and path[:1] == [option.name] else path
        if names and names[0] in option.settable:
            yield option.settable[names[0]], option.comments.get(names[0], "")


def _must_be(catalogue: Catalogue, word: str) -> str:
    """What the value of a word that cannot be read must be."""
    key = re.split(r"[\[=]", word.lstrip("+~"), maxsplit=1)[0].strip()
    kinds = dict.fromkeys(expected(object(), default, comment) for default, comment in _kinds_of(catalogue, key))
    if kinds and None not in kinds:
        return f"; {key} must be {' or '.join(map(str, kinds))}"
    if key in catalogue.groups:
        return f"; {key} must be one of {', '.join(catalogue.groups[key])}"
    return "; expected KEY=VALUE, with text in quotes: 'notes=\"…\"'" if "=" in word else ""


def meant_by(catalogue: Catalogue, word: str) -> str:
    if word in catalogue.groups:
        return f"; write {catalogue.spelling(word, 'OPTION')}"
    for group, options in catalogue.groups.items():
        if word in options and word != NONE:
            return f"; did you mean {catalogue.spelling(group, word)}?"
    return f"; did you mean {word}=VALUE?" if word in catalogue.keys else ""
