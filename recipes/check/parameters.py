"""What is asked of an option's file and of the parameters that its class declares."""

from __future__ import annotations

import inspect
import math
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plugins.base import Plugin, RecipeError
from plugins.declare import Declared, Parameter
from plugins.plugin import acts_in_steps
from recipes.check import choice
from recipes.check.outcome import NotAsked, expect, wrong
from recipes.config.catalogue import INHERITED, Option
from recipes.run.classes import find_class, instantiate

LONGEST = 160  # of the line in --help
SHARES: tuple[Any, ...] = ((0.9, 0.1), (0.5, 0.5), (-0.1, 1), (0, 1.1), 0.5, [0.5], "late", None, (False, True), (0, math.nan))


def file(name: str, folder: Path) -> None:
    """The option's file begins with a line for `--help`, and says something of each parameter."""
    option = choice.option_of(name)
    first = option.text.splitlines()[:1]
    expect(first and first[0].startswith("# "), f"{option.path} does not begin with a comment, which is its line in --help")
    expect(len(first[0]) <= LONGEST, f"the first line of {option.path} is longer than {LONGEST} characters")
    silent = [parameter for parameter in option.parameters if not option.comments.get(parameter)]
    expect(not silent, f"{option.path} has no comment behind {', '.join(silent)}")


def declared(name: str, folder: Path) -> None:
    """The parameters that the class declares: told in the file and the docstring, checked in the constructor, kept as they are."""
    option = choice.option_of(name)
    kind = find_class(option.node["_target_"])
    if not issubclass(kind, Declared):
        raise NotAsked("its class declares no parameters")
    for each in (told_in_file, told_in_docstring, misfits_refused, borders_fit, pickled):
        each(option, kind)
    if issubclass(kind, Plugin):
        takes_share(option, kind)


def own(kind: type[Declared]) -> dict[str, Parameter]:
    """The declared parameters that the option's file tells."""
    return {name: held for name, held in kind.declared_parameters.items() if name not in INHERITED}


def _taken(kind: type[Declared]) -> bool:
    """Whether the constructor is the one that comes from the declaration."""
    return kind.__init__ is Declared.__init__


def told_in_file(option: Option, kind: type[Declared]) -> None:
    """Names, defaults, comments of the file are those declared."""
    if not _taken(kind):
        return
    lines = {name: f"{name}: … # {held.comment}" for name, held in own(kind).items()}
    expect(set(option.parameters) == set(lines), f"{option.path} has other parameters than {kind.__name__}")
    for name, held in own(kind).items():
        told = option.parameters[name]
        same = told == held.default and type(told) is type(held.default)
        expect(same, f"{option.path}: {name} is {held.default!r} by default")
        expect(option.comments[name] == held.comment, f"{option.path}: write {lines[name]}")


def told_in_docstring(option: Option, kind: type[Declared]) -> None:
    """The docstring lists them."""
    text = inspect.getdoc(kind) or ""
    for name, held in kind.declared_parameters.items() if _taken(kind) else ():
        expect(held.described(name) in text, f"the docstring of {kind.__name__} lacks: {held.described(name)}")


def misfits(held: Parameter) -> Iterator[Any]:
    """Values that a parameter must refuse."""
    yield from (object(), {"a": 1}, [], "no such word", math.nan)
    yield from () if held.null else (None,)
    if found := re.fullmatch(r"([≥>]) (-?[\d.]+)", held.range):
        yield from (float(found[2]) - 1, True, int(float(found[2])) - 1)
        yield from (float(found[2]),) if found[1] == ">" else ()
        yield from () if held.words.startswith("a whole") or "inf" in held.also else (math.inf,)
        yield from (float(found[2]) + 0.5,) if held.words.startswith("a whole") else ()
    elif found := re.fullmatch(r"in ([(\[])([\d.]+), ([\d.]+)([)\]])", held.range):
        yield from (float(found[2]) - 0.1, float(found[3]) + 0.1, False, math.inf)
        yield from (float(found[2]),) if found[1] == "(" else ()
        yield from (float(found[3]),) if found[4] == ")" else ()


def misfits_refused(option: Option, kind: type[Declared]) -> None:
    """What does not fit is refused in one line that says what does."""
    for name, held in own(kind).items():
        free: tuple[type, ...] = (dict,) if held.words.startswith("a mapping") else ()  # names that only the data tells
        if held.words.startswith(("the name", "the folder", "a list")):  # any text will do, any list
            free = (str, list)
        for value in misfits(held):
            if isinstance(value, free):
                continue
            try:
                kind(**{name: value})
            except RecipeError as error:
                text = str(error)
                told = text.startswith(f"{name} must be {held.words}") and f", got {value!r}" in text and "\n" not in text
                expect(
                    told,
                    f"{name}={value!r} is refused in other words than '{name} must be {held.words}, got {value!r}': {text}",
                )
            else:
                wrong(f"{name}={value!r} is taken, and {name} must be {held.words}")


def borders_fit(option: Option, kind: type[Declared]) -> None:
    """What is at the border fits."""
    for name, held in own(kind).items():
        if found := re.fullmatch(r"≥ (\d+)|in \[(\d+), .*", held.range):
            least = int(found[1] or found[2])
            expect(_kept(kind(**{name: least}), name) == least, f"{name}={least} is at the border, and is not kept")
        if held.null:
            expect(_kept(kind(**{name: None}), name) is None, f"{name}=None is not kept")


def _kept(made: Declared, name: str) -> Any:
    """The value of a parameter."""
    return getattr(made, own(type(made))[name].kept or name)


def pickled(option: Option, kind: type[Declared]) -> None:
    """An object can be pickled, takes its parameters in their order and no others."""
    made = pickle.loads(pickle.dumps(kind(**option.parameters)))
    by_place = kind(*(held.default for held in own(kind).values()))
    for name, value in option.parameters.items() if _taken(kind) else ():
        kept = _kept(made, name) == _kept(by_place, name) == value
        expect(
            kept,
            f"{name} is {_kept(made, name)!r} once pickled, {_kept(by_place, name)!r} by place, and {value!r} in the file",
        )
    try:
        kind(no_such_parameter=1)
    except TypeError as error:
        named = not _taken(kind) or re.match(rf"{kind.__name__}: .*no_such_parameter", str(error))
        expect(named, f"a parameter that it does not have is refused without naming both: {error}")
    else:
        wrong(f"{kind.__name__} takes a parameter that it does not have")


def takes_share(option: Option, kind: type[Plugin]) -> None:
    """What acts step by step takes `when`, the share of the training in which it acts; what does not refuses it."""
    node = dict(option.node)
    if not _taken(kind):
        return
    if not acts_in_steps(kind):
        try:
            instantiate({**node, "when": [0, 0.9]})
        except RecipeError as error:
            told = str(error).startswith("when=[0, 0.9] is for techniques that act step by step")
            expect(told, f"when is refused in other words: {error}")
        else:
            wrong("when is taken, and there are no steps in which it could be left out")
        return
    expect(kind().when == (0.0, 1.0) and instantiate({**node, "when": [0, 0.9]}).when == (0.0, 0.9), "when is not kept")
    for value in SHARES:
        try:
            kind(when=value)
        except RecipeError as error:
            told = str(error).startswith("when must be two numbers, 0 ≤ start < end ≤ 1, got ")
            expect(told, f"when={value!r} is refused in other words: {error}")
        else:
            wrong(f"when={value!r} is taken")
