"""Lengths of time as people type them: `10min`, `2h`, `1h30m`, `90s`, `1:30:00`. Nothing here imports torch."""

from __future__ import annotations

import re

from plugins.errors import RecipeError
from recipes.config.quoting import show

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
NAMES = {"d": "d|days?", "h": "h|hrs?|hours?", "m": "m|mins?|minutes?", "s": "s|secs?|seconds?"}
PARTS = re.compile(" *".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?) *(?:{names}))?" for unit, names in NAMES.items()), re.IGNORECASE)
CLOCK = re.compile(r"(?:(?P<d>\d+):)?(?P<h>\d+):(?P<m>[0-5]?\d):(?P<s>[0-5]?\d)")  # as Lightning's Trainer has it, too
LONGEST = 3650.0 * 86400  # seconds


def seconds_of(place: str, value: object) -> float:
    """The seconds of a length of time.

    Args:
        place: where it stands on the command line.
        value: `10min`, `2h`, `1h30m`, `90s`, `HH:MM:SS` or `DD:HH:MM:SS`.

    Raises:
        RecipeError: it is no length of time, or none that anybody could train for.
    """
    text = show(value).strip()
    found = CLOCK.fullmatch(text) or (PARTS.fullmatch(text) if text else None)
    seconds = sum(float(number) * UNITS[unit] for unit, number in found.groupdict().items() if number) if found else 0.0
    if found is None or not 0 < seconds <= LONGEST:
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LONGEST
        unit = f"; did you mean {place}={text}s, or {place}={text}min?" if number else ""
        raise RecipeError(
            f"{place} must be a length of time such as 10min, 2h, 1h30m, 90s or HH:MM:SS, got {show(value)}{unit}"
        )
    return seconds


def twice(place: str, value: object) -> str:
    """A length of time that is twice as long, as it is typed."""
    seconds = 2 * seconds_of(place, value)
    for unit, name in (("d", "d"), ("h", "h"), ("m", "min")):
        if seconds % UNITS[unit] == 0:
            return f"{seconds / UNITS[unit]:.0f}{name}"
    return f"{seconds:g}s"
