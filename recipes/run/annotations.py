"""What a library's class is annotated to take: over a value of another kind it may stumble in mid-training."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Union, get_args, get_origin, get_type_hints

from plugins.errors import expect

KINDS: dict[Any, str] = {  # of plain values; timedelta is one that cannot be typed
    **{str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "a mapping"},
    **{type(None): "null", timedelta: ""},
}


def expect_annotated(place: str, kind: type, given: Mapping[str, Any]) -> None:
    """Refuse values that are not what a class is annotated with, where that are plain values; what is in a list is not asked.

    Args:
        place: of the option on the command line.
        kind: the class.
        given: what it is made from, by name of parameter.

    Raises:
        RecipeError: a value of another kind.
    """
    hints, taken = _hints(kind), inspect.signature(kind).parameters
    for name, value in given.items():
        if name not in hints or name not in taken or value == taken[name].default:
            continue
        hint = hints[name]
        choices = [get_origin(each) or each for each in (get_args(hint) if _is_union(hint) else [hint])]
        told = [KINDS[each] for each in choices if KINDS.get(each)]
        if told and all(each in KINDS for each in choices):
            words = " or ".join([*filter(None, [", ".join(told[:-1])]), told[-1]])
            expect(any(_fits(value, each) for each in choices), f"{place}.{name}", words, value)


def _hints(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind.__init__)  # type: ignore[misc]
    except (NameError, TypeError, AttributeError):  # names that only a type checker imports
        return {}


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _fits(value: object, kind: type) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number if kind is float else type(value) is kind
