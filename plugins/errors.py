"""A mistake of the user's: one class, and the checks of parameters that raise it. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence


class RecipeError(ValueError):
    """A mistake of the user's, told in one line: what was wrong, what was expected, what to type instead."""


class Refusal(RecipeError):
    """A combination that cannot be right, told before the first batch: both options, the reason and the fix."""


class Diverged(RecipeError):
    """Loss or weights have become NaN or infinite, and nothing undoes it: what was best so far is kept."""


class GivenUp(Exception):
    """A training that is not worth going on with: it ends as `pruned`, after a step and for a reason in a line."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(reason)
        self.step = step


def expect(holds: bool, name: str, expected: str, received: object) -> None:
    """Raise a :class:`RecipeError` that names the parameter, what it must be and what it was, unless `holds`."""
    if not holds:
        raise RecipeError(f"{name} must be {expected}, got {received!r}")


def expect_probability(name: str, value: float) -> None:
    """Accept a number in [0, 1]."""
    expect(_is_number(value) and 0 <= value <= 1, name, "a probability between 0 and 1", value)


def expect_nonnegative(name: str, value: float) -> None:
    """Accept a finite number ≥ 0."""
    expect(_is_number(value) and math.isfinite(value) and value >= 0, name, "a number ≥ 0", value)


def expect_positive(name: str, value: float) -> None:
    """Accept a finite number > 0."""
    expect(_is_number(value) and math.isfinite(value) and value > 0, name, "a number > 0", value)


def expect_count(name: str, value: int, least: int = 1) -> None:
    """Accept a whole number ≥ `least`."""
    expect(isinstance(value, int) and not isinstance(value, bool) and value >= least, name, f"a whole number ≥ {least}", value)


def expect_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Accept one of `choices`."""
    expect(value in choices, name, "one of " + ", ".join(map(str, choices)), value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
