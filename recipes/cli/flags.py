"""The flags of `train.py`, `evaluate.py`, `predict.py` and `export.py`, apart from the words between them, in whatever order."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.quoting import quote
from recipes.config.spelling import nearest

OF_EVALUATION = ("help", "config_dir", "version")
NOT_SUPPORTED = {
    "config_name": "choose a recipe: recipe=NAME",
    "config_path": "name a further config folder: --config-dir FOLDER",
    "experimental_rerun": "go on with a run: resume=FOLDER",
}


def parse_flags(words: Sequence[str], script: str = "train.py") -> argparse.Namespace:
    """The words as Hydra's own parser takes them apart; what it does not know is told in one line.

    Args:
        words: the command line; flags may stand anywhere in it.
        script: those that train nothing have fewer flags.

    Raises:
        RecipeError: for a flag that there is not, or that lacks its value.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise RecipeError(message)

    parser.error = refuse  # type: ignore[method-assign]
    flags, unknown = parser.parse_known_intermixed_args(words)
    flags.all_jobs = False  # of a sweep that goes on
    few = script != "train.py"
    actions = [action for action in parser._actions if action.option_strings and action.dest not in NOT_SUPPORTED]
    known = [flag for action in actions if not few or action.dest in OF_EVALUATION for flag in action.option_strings]
    if unknown:
        word = unknown[0]
        raise RecipeError(f"{word}: {_meant(word, words, [flag for flag in known if flag.startswith('--')], few)}")
    for name, instead in NOT_SUPPORTED.items():
        if getattr(flags, name):
            raise RecipeError(f"--{name.replace('_', '-')} is not supported; {instead}")
    further = [
        action.dest for action in actions if few and action.dest not in OF_EVALUATION and getattr(flags, action.dest, None)
    ]
    if further:
        raise RecipeError(
            f"{script} has no flags but --help, --version and --config-dir: leave out --{further[0].replace('_', '-')}"
        )
    if flags.resolve and not flags.cfg:
        raise RecipeError("--resolve fills in the references in a config that --cfg prints: add --cfg job, or leave it out")
    if flags.package and not flags.cfg:
        raise RecipeError("--package says which part of a config --cfg prints: add --cfg job, or leave it out")
    return flags


def _meant(word: str, words: Sequence[str], known: Sequence[str], few: bool) -> str:
    """What to type instead of a flag that there is not."""
    from recipes.config.changing import ON_EVALUATION
    from recipes.config.choosing import check_names
    from recipes.config.parsing import parse

    name, equals, value = word.lstrip("-").partition("=")
    following = list(words[words.index(word) + 1 :])[:1] if word in words else []
    if not equals:
        value = next((each for each in following if "=" not in each and not each.startswith("-")), "VALUE")
    key = name.replace("-", "_")
    catalogue = Catalogue(installed_folders())
    head = key.split(".")[0]
    close = nearest(name, [flag.lstrip("-") for flag in known])
    if (head in catalogue.keys or head in catalogue.groups or not close) and (not few or head in ON_EVALUATION):
        try:
            (override,) = parse(catalogue, [f"{key}={value}"])
            check_names(catalogue, override)
            return f"write {quote(str(override.input_line))}, without the dashes"
        except RecipeError as error:
            if "did you mean" in str(error) and (equals or value != "VALUE"):
                return str(error)
    if close:
        return f"there is no flag {word}; did you mean --{close.replace('_', '-')}?"
    shown = f"there is {', '.join(known)}" if few else "python train.py --help tells what there is"
    return f"there is no flag {word}; {shown}"
