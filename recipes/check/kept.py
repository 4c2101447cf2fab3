"""What a resumed run has of what a plugin keeps as its own attributes, beside the run that was not stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from plugins.base import Plugin

PLAIN = (bool, int, float, complex, str, bytes, type(None), Tensor)


def forgotten(whole: Plugin, resumed: Plugin) -> str | None:
    """The first attribute that differs, in words; None: there is none. Caches, whose names begin with `_`, may."""
    before, after = _kept(whole), _kept(resumed)
    for name, value in before.items():
        if name not in after:
            return f"`{name}` is gone"
        if not same(value, after[name]):
            short = isinstance(value, PLAIN[:-1]) and isinstance(after[name], PLAIN[:-1])
            return f"`{name}` is {after[name]!r} instead of {value!r}" if short else f"`{name}` is another"
    return next((f"`{name}` is there, and should not be" for name in after if name not in before), None)


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, NaN to NaN and tensors in every bit."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and bool(((first == second) | ((first != first) & (second != second))).all())
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return False
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if _is_sequence(first) and _is_sequence(second):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second or (first != first and second != second))


def _kept(plugin: Plugin) -> dict[str, Any]:
    return {name: value for name, value in vars(plugin).items() if not name.startswith("_") and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, a tensor, or a container of these; tensors of two runs are never one key."""
    if isinstance(value, Mapping):
        return _has_no_tensor(value) and all(map(_is_plain, value.values()))
    if isinstance(value, set | frozenset):
        return _has_no_tensor(value)
    return all(map(_is_plain, value)) if _is_sequence(value) else isinstance(value, PLAIN)


def _has_no_tensor(keys: Iterable[Any]) -> bool:
    return all(isinstance(key, PLAIN) and not isinstance(key, Tensor) for key in keys)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
