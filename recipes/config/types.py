"""Whether a value fits an option's parameter: type, choices and range, read from its default and its comment. Nothing here imports torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from plugins.errors import RecipeError
from recipes.config.quoting import show
from recipes.config.spelling import suggest

VALUE_OF_ANY_KIND = object()

# at the end of what a comment says of a parameter, before what it says of null or of further words
RANGE = re.compile(r"(?:in ([\[(])(-?[\d.]+), (-?[\d.]+)([\])])|, (?:a number )?([≥>]) (-?[\d.]+))(?=$|;| \|)")
LARGEST = 3.4e38  # number of 32 bits, in which models compute


def expected(value: object, default: object, comment: str = "") -> str | None:
    """What a parameter must be, if `value` is not of its default's type; None if it is.

    An int is fine where a float is, a default of null admits anything, and so does the comment for words after a bar:
    `devices: 1 # how many | auto`. A bar and a bracket admit a list: `target: y # a name | [names]`. The elements of a list
    are of the type of the default's elements, or numbers where the bracket begins with one: `mode: even # even | [1,2]: weights`.
    """
    words = also(comment)
    if default is None or show(value) in words or (isinstance(default, str) and "${" in default):
        return None
    if _fits(value, default):
        return None
    if found := re.search(r"\| \[([^],]*)", comment):
        like: object = 1.0 if re.fullmatch(r"[\d.]+", found[1]) else default  # [1,2]: of numbers; [names]: as the default
        fits = isinstance(value, list) and all(_fits(element, like) for element in value)
        return None if fits else f"{_kind(default)} or a list" + (" of numbers" if like is not default else "")
    if isinstance(default, str):
        return "one of " + ", ".join(listed) if (listed := choices(default, comment)) else _kind(default)
    return " or ".join([_kind(default), *words])


def also(comment: str) -> list[str]:
    """The words after a bar in a comment, which a parameter takes beside values of its default's type."""
    return re.findall(r"\|\s*([\w.+-]+)", comment)


def choices(default: object, comment: str) -> list[str]:
    """The words that a comment lists for a text: `mode: a # a | b`."""
    words = [word.strip() for word in comment.partition(";")[0].split("|")]
    return (
        words if isinstance(default, str) and len(words) > 1 and all(re.fullmatch(r"[\w.-]+", word) for word in words) else []
    )


def too_large(value: object) -> str | None:
    """What a number must be, if it is none that the computation can hold: not finite, or too large for its 32 or 64 bits."""
    if isinstance(value, float) and not abs(value) <= LARGEST:
        return "a finite number" if math.isnan(value) or math.isinf(value) else f"a number of at most {LARGEST:.4g}"
    return "a whole number of at most 18 digits" if isinstance(value, int) and abs(value) >= 10**18 else None


def outside(value: object, default: object, comment: str) -> str | None:
    """What a number must be, if it is outside of the range that the comment tells: `in [0, 1)`, `≥ 0` or `> 0`.

    Of a list each number must be in the range, and there must be as many as in the default. What is null by default and has a
    least number is a whole one, unless it says `a number ≥ 0`.
    """
    if not (found := RANGE.search(comment)):
        return None
    opens, low, high, closes, sign, least = found.groups()
    counts = (
        default is None and sign == "≥" and "a number" not in found.group()
    )  # steps, or pixels: what has no number by default

    def inside(number: object) -> bool:
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            return True
        if sign:
            if counts and not isinstance(number, int):
                return False
            return number > float(least) or (sign == "≥" and number == float(least))
        above = number > float(low) or (opens == "[" and number == float(low))
        return above and (number < float(high) or (closes == "]" and number == float(high)))

    words = found.group()
    if sign:
        words = f"{'a whole number' if counts else _kind(0.0 if default is None else default)} {sign} {least}"
    elif words == "in [0, 1]":
        words = "a probability between 0 and 1"
    words = " or ".join([words, *also(comment)])
    if isinstance(value, list) and isinstance(default, list):
        several = f"{len(default)} numbers {found.group().removeprefix(', ')}"
        return None if len(value) == len(default) and all(map(inside, value)) else several
    return None if inside(value) else words


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, list):
        kinds = {_kind(element) for element in default}
        return isinstance(value, list) and (len(kinds) != 1 or all(_fits(element, default[0]) for element in value))
    return type(value) is type(default)


def _kind(default: object) -> str:
    if isinstance(default, list):
        kinds = {_kind(element) for element in default}
        plural = {"a whole number": " of whole numbers", "a number": " of numbers", "text": " of words"}
        return "a list" + (plural.get(kinds.pop(), "") if len(kinds) == 1 else "")
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}
    return names.get(type(default), "of another type")


def check_type(place: str, value: object, default: object, comment: str) -> None:
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
                check_type(f"{place}.{name}", inner, default[name], "")
            else:
                check_type(f"{place}.{name}", inner, None, "")
    elif isinstance(value, list):
        for inner in value:
            check_type(place, inner, None, "")
