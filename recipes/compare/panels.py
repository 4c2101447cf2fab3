"""The picture that a technique asks for at the end of a run: plots of what it has recorded, side by side. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plugins.drawing import Panel, Points
from recipes.compare.figure import DARK, GREY, LOOKS
from recipes.compare.notes import shorten
from recipes.compare.runs import Run

WIDTH, HEIGHT = 4.2, 3.4  # inches of a plot
MOST_LINES, MOST_NAMED = 40, 12
LONGEST = 24  # letters of a label
WHOLE = "all"  # the label of what is of no part
ALL = "*"  # the ending of all names


def draw_panels(run: Run, option: str, panels: Sequence[Panel]) -> Figure | None:
    """A figure of what there is to draw in the files of a run; None where that is nothing."""
    lines = [_lines(run, option, panel) for panel in panels]
    shown = [(panel, found) for panel, found in zip(panels, lines, strict=True) if found]
    if not shown:
        return None
    figure = Figure(figsize=(WIDTH * len(shown), HEIGHT), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (panel, found) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _draw(axes, panel, found)
    return figure


def _lines(run: Run, option: str, panel: Panel) -> dict[str, Points]:
    """What a plot shows, by label."""
    found = {label: points for label, points in panel.points.items() if len(points[0])}
    if panel.ending:
        for name, (steps, values) in run.curves.items():
            group, _, own = name.partition("/")
            if group == option and own and (panel.ending == ALL or f"_{own}".endswith(f"_{panel.ending}")):
                found[_label(own, panel.ending)] = steps, values
    if panel.histograms:
        for name, entries in run.histograms.items():
            if name.partition("/")[0] == option and entries:
                _, low, high, counts = entries[-1]
                width = (high - low) / len(counts)
                middles = [low + (place + 0.5) * width for place in range(len(counts))]
                found[name.partition("/")[2]] = middles, [100 * count / (sum(counts) or 1) for count in counts]
    return dict(list(found.items())[:MOST_LINES])


def _label(name: str, ending: str) -> str:
    return name if ending == ALL else name.removesuffix(ending).removesuffix("_") or WHOLE


def _colours(labels: Sequence[str]) -> Mapping[str, object]:
    """One each: those of the other pictures for a few, shades from the first layer to the last for many; grey for all together."""
    parts = [label for label in labels if label != WHOLE]
    if len(parts) <= len(LOOKS):
        found: dict[str, object] = {label: LOOKS[place][0] for place, label in enumerate(parts)}
    else:
        shades = matplotlib.colormaps["viridis"]
        found = {label: shades(0.92 * place / (len(parts) - 1)) for place, label in enumerate(parts)}
    return {**found, WHOLE: GREY}


def _draw(axes: Axes, panel: Panel, lines: Mapping[str, Points]) -> None:
    colours = _colours([*lines])
    if panel.diagonal:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
        axes.set(xlim=(0, 1), ylim=(0, 1))
    for label, (x, y) in lines.items():
        values = [value if math.isfinite(value) else math.nan for value in y]
        style = "steps-mid" if panel.histograms else "default"
        mark = "o" if len(values) <= MOST_NAMED * 2 and not panel.histograms else ""
        axes.plot(
            x,
            values,
            drawstyle=style,
            marker=mark,
            markersize=3,
            color=colours[label],
            linewidth=1.3,
            label=shorten(label, LONGEST),
        )
    known = [value for _, y in lines.values() for value in y if math.isfinite(value)]
    if known and min(known) > 0 and max(known) > 100 * float(np.median(known)) and not panel.diagonal:
        axes.set_yscale("log")
    across, up = ("value", "% of values") if panel.histograms else panel.axes
    axes.set_title(panel.title, fontsize=10, color=DARK, parse_math=False)
    axes.set_xlabel(across, fontsize=8)
    axes.set_ylabel(up, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if [*lines] != [WHOLE]:
        handles, labels = axes.get_legend_handles_labels()
        if len(labels) > MOST_NAMED:
            kept = sorted({round(place * (len(labels) - 1) / (MOST_NAMED - 1)) for place in range(MOST_NAMED)})
            handles, labels = [handles[place] for place in kept], [labels[place] for place in kept]
        axes.legend(handles, labels, fontsize=6.5, frameon=False)
