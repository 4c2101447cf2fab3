"""Numbers of a comparison as people read them: a metric's unit and digits. Nothing here imports torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from html import escape

from plugins.directions import is_accuracy


class Metric:
    """How a metric is written: accuracies in percent."""

    def __init__(self, name: str, digits: int = 4) -> None:
        self.name = name
        percent = (100.0, max(0, digits - 2), " %", " points")
        self.scale, self.decimals, self.unit, self.points = percent if is_accuracy(name) else (1.0, digits, "", "")
        split, _, rest = name.partition("/")
        spelled = {"val": "validation", "train": "training"}.get(split, split)
        words = re.sub(r"\bacc\b", "accuracy", rest.replace("/", " ").replace("_", " "))
        self.title = f"{spelled} {words}" if words else name  # as it is said in a sentence
        self.head = f"{name}, %" if self.unit else name

    def text(self, value: float) -> str:
        """The number without its unit."""
        return "–" if math.isnan(value) else f"{self.scale * value:.{self.decimals}f}"

    def signed(self, value: float) -> str:
        """A difference, with its sign."""
        return f"{self.scale * value:+.{self.decimals}f}".replace("-", "−")

    def deviation(self, value: float | None) -> str:
        """The part behind the mean."""
        return "" if value is None else f' <span class="deviation">± {self.text(value)}</span>'

    def scaled(self, values: Iterable[float | None]) -> list[float | None]:
        """Numbers for a plot."""
        return [number(None if value is None else self.scale * value) for value in values]


def number(value: float | None) -> float | None:
    """A number short enough for a plot; None where there is none."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def plain(text: str) -> str:
    """A text that plotly must take neither for markup nor for a template."""
    return escape(text, quote=False).replace("%{", "%&#123;")
