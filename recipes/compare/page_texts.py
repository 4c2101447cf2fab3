"""Short texts of the report's page. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence


def times(ratio: float | None) -> str:
    """How many times the baseline's."""
    return "" if ratio is None or math.isnan(ratio) else f' <span class="ratio">×{ratio:.2f}</span>'


def probability(p: float, equals: str = "") -> str:
    """A p-value."""
    return "< 0.001" if p < 0.001 else f"{equals}{p:.3f}"


def sort_key(value: object) -> str:
    """The value by which a cell is sorted; empty where there is none, which sorts last."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def ranges(numbers: Sequence[int]) -> str:
    """Whole numbers as ranges: 0–4, 7."""
    parts: list[list[int]] = []
    for value in numbers:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in parts)


def config(name: str) -> str:
    """The class of a config column."""
    return " config" if name.startswith("config-") else ""


def hidden(name: str) -> str:
    """Config columns are shown on demand."""
    return " hidden" if name.startswith("config-") else ""
