"""What a technique leaves as a picture at the end of a training, told without anything that draws. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Points = tuple[Sequence[float], Sequence[float]]  # x and y


@dataclass(frozen=True)
class Panel:
    """One plot of a picture.

    Attributes:
        title: above it.
        ending: of the names of numbers that the technique has recorded, NAME of the whole and PART_NAME of each part, or "*" for all of them:
            curves over the steps.
        histograms: whether the last histogram of each name is drawn.
        points: further lines, by their label.
        axes: what x and y are.
        diagonal: whether the line y = x is drawn, from 0 to 1.
    """

    title: str
    ending: str = ""
    histograms: bool = False
    points: Mapping[str, Points] = field(default_factory=dict)
    axes: tuple[str, str] = ("step", "")
    diagonal: bool = False
