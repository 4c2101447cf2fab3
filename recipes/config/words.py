"""Words that cannot be read, or that would count for nothing: what was meant, and what to type instead.

Hydra lets the last of two words win, leaves the settings of a sweep unused without one, and tells of a word that it cannot
read in the terms of its grammar. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.quoting import quote, quoted

LOOK_ALIKES = {
    **dict.fromkeys(map(ord, "“”„‟″＂«»"), '"'),
    **dict.fromkeys(map(ord, "‘’‚‛′`´"), "'"),
    **dict.fromkeys(map(ord, "‐‑‒–—―−"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u202f\u2007\u3000"), " "),
    **{ord("＝"): "=", ord("，"): ",", ord("［"): "[", ord("］"): "]", ord("．"): ".", ord("＋"): "+"},
}
FLAGS = {"h": "--help", "help": "--help", "m": "-m", "multirun": "-m", "cfg": "--cfg job"}
FOR_SWEEPS = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper", "hydra.sweep")
# beside it, to be passed over: what is in quotes
YAMLS_NUMBER = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?<=[=,\[({: ])([+-]?)\.(inf|nan)(?=[,\])} ]|$)""", re.IGNORECASE
)
FURTHEST = 6  # words into which blanks can have split one
LONGEST = 1000  # letters of a word that is looked at for what was meant
DEEPEST = 50  # brackets inside of each other, of which the grammar takes more time with each


def parse_word(parser: OverridesParser, word: str) -> Override:
    """One word as Hydra reads it."""
    word = readable(word)
    try:
        if max(word.count(opening) for opening in "[{(") > DEEPEST:
            raise RecipeError(f"{cut(word)}: cannot be read: more than {DEEPEST} brackets")
        return parser.parse_overrides([word])[0]
    except (HydraException, ValueError, RecursionError):
        raise RecipeError(f"{cut(word)}: cannot be read") from None


def readable(word: str) -> str:
    """A word with numbers that YAML writes with a point, `.inf` and `.nan`, as Hydra's grammar writes them."""
    return YAMLS_NUMBER.sub(lambda found: found[0] if found[1] is None else f"{found[1]}{found[2]}", word)


def cut(word: str) -> str:
    """A word as a message shows it."""
    return word if len(word) <= 200 else f"{word[:200]}…"


def meant(words: Sequence[str], index: int, good: Callable[[str], bool]) -> str | None:
    """What was meant by a word that cannot be read, as it is typed in a shell.

    Args:
        words: the command line.
        index: of the word.
        good: whether a word could stand there.
    """
    word = words[index]
    if len(word) > LONGEST:
        return None
    plain = word.translate(LOOK_ALIKES)
    if (plain.startswith("-") or "=" not in plain) and (flag := FLAGS.get(plain.lstrip("-").lower())):
        return flag
    several = re.split(r"[;,]\s*(?=[+~]*[A-Za-z][\w.]*=)", plain)
    if len(several) > 1 and all(map(good, several)):
        return " ".join(map(quote, several))
    for candidate in _candidates(words, index):
        for mended in _mended(candidate):
            if mended != word and good(mended):
                return quote(mended)
    return None


def _candidates(words: Sequence[str], index: int) -> Iterator[str]:
    """The word, alone and with those around it from which a blank has split it."""
    word, others = words[index], words[index + 1 : index + FURTHEST]
    split = bool(others) and ("=" not in others[0] or others[0].startswith("="))
    before = words[index - 1] if index else ""
    if not split:
        yield word
    if before.endswith(("=", ",")):
        yield before + word
    if split:
        for end in range(1, len(others) + 1):
            yield " ".join([word, *others[:end]])
        yield word
    if "=" in before and "=" not in word:
        yield f"{before} {word}"


def _mended(word: str) -> Iterator[str]:
    """The word, and what it is without one of the usual slips."""
    yield word
    plain = word.translate(LOOK_ALIKES)
    yield plain
    yield plain.strip("\"'")
    yield plain.lstrip("-")
    equals = re.sub(r"\s*=[=\s]*", "=", plain.strip(), count=1)
    yield equals
    yield re.sub(r",[,\s]*(?=[,\]})]|$)|(?<=[=\[({]),+", "", equals)
    yield re.sub(r"\((.*)\)$", r"[\1]", equals)
    yield equals + "]" * (equals.count("[") - equals.count("]")) + "}" * (equals.count("{") - equals.count("}"))
    if "=" not in plain:
        yield re.sub(r"\s*[:/\s]\s*", "=", plain.strip(), count=1)
    key, _, value = equals.partition("=")
    yield f"{re.sub(r'[.]+', '.', key).strip('.')}={value}"
    yield f"{key}={quoted(value.strip())}"


def expect_once(catalogue: Catalogue, overrides: Sequence[Override]) -> None:
    """Refuse two words for one thing, of which Hydra would drop the first; techniques can be added one by one."""
    given: dict[str, Override] = {}
    for override in overrides:
        key = override.key_or_group
        first = given.setdefault(key, override)
        added = key in catalogue.groups and (override.is_add() or first.is_add())
        if first is not override and not added:
            raise RecipeError(f"{key} is given twice, {first.input_line} and {override.input_line}: leave one out")


def expect_at_work(overrides: Sequence[Override], multirun: bool) -> None:
    """Refuse settings of a sweep without one, and the folder of a single run with one: they would do nothing."""
    for override in overrides:
        key = override.key_or_group
        if not multirun and key.startswith(FOR_SWEEPS):
            raise RecipeError(
                f"{override.input_line}: belongs to a sweep, and this would train one run here: add -m, or leave it out"
            )
        if multirun and key.startswith("hydra.run."):
            raise RecipeError(f"{override.input_line}: is for a single run; the folder of a sweep is hydra.sweep.dir=FOLDER")


def expect_repeatable(overrides: Sequence[Override], multirun: bool) -> None:
    """Refuse jobs whose settings a clock would choose, or that are no others than those of other jobs.

    Args:
        overrides: each value of a sweep by itself.
        multirun: whether it is a sweep.
    """
    rates = [str(override.input_line) for override in overrides if override.key_or_group == "optimizer.lr"]
    for override in overrides:
        if multirun and override.key_or_group == "tune" and override.value() == "lr" and len(rates) > 1:
            raise RecipeError(
                f"{override.input_line} finds a rate for each job, which would take the place of {' and '.join(rates[:2])}: leave one of both out"
            )
        if multirun and override.key_or_group == "tune" and override.value() == "batch_size":
            raise RecipeError(
                f"{override.input_line} goes by the clock, so that no job of a sweep could be run again: find it once, without -m, then "
                f"type data.batch_size=SIZE"
            )


def expect_search(overrides: Sequence[Override]) -> None:
    """Refuse an interval that nothing searches, or in which nothing can be found."""
    searched = any(o.key_or_group == "hydra/sweeper" and o.value() != "basic" for o in overrides)
    for override in overrides:
        if not override.is_interval_sweep():
            continue
        interval: Any = override.value()
        line, low, high = override.input_line, interval.start, interval.end
        if not searched:
            raise RecipeError(
                f"{line}: an interval is searched by Optuna: add hydra/sweeper=optuna, or list values: "
                f"{override.get_key_element()}={low},{high}"
            )
        if not low < high:
            raise RecipeError(f"{line}: an interval goes from the smaller number to the larger one")
        if "log" in interval.tags and low <= 0:
            raise RecipeError(f"{line}: an interval with log must begin above 0, got {low}")
