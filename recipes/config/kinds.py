"""Of what kind a value is that was read from a file. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping


def is_text(value: object) -> bool:
    """A text."""
    return isinstance(value, str)


def is_count(value: object) -> bool:
    """A whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """A finite number."""
    return is_count(value) or (isinstance(value, float) and math.isfinite(value))


def is_flag(value: object) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_mapping(value: object) -> bool:
    """Keys with values."""
    return isinstance(value, Mapping)


def is_texts(value: object) -> bool:
    """A list of texts."""
    return isinstance(value, list) and all(map(is_text, value))


def is_counts(value: object) -> bool:
    """A list of whole numbers."""
    return isinstance(value, list) and all(map(is_count, value))


def is_numbers(value: object) -> bool:
    """Numbers by name; null where there is none."""
    return isinstance(value, Mapping) and all(number is None or is_number(number) for number in value.values())
