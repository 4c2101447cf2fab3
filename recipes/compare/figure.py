"""The comparison as a picture: learning curves beside each group's interval. Nothing here imports torch."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from plugins.directions import is_accuracy
from recipes.compare.groups import Comparison, Group
from recipes.compare.notes import shorten
from recipes.compare.runs import Run
from recipes.compare.statistics import Row
from recipes.compare.table import decimals, mean
from recipes.store.files import write_whole

MOST_CURVES, MOST_GROUPS = 6, 20
GREY, DARK, LIGHT = "#5f5f5f", "#333333", "#b8b8b8"
# colours that colour-blind people can tell apart (Okabe and Ito), each with a mark of its own
LOOKS = (("#0072b2", "s"), ("#d55e00", "^"), ("#009e73", "D"), ("#cc79a7", "v"), ("#b58900", "P"))
LABEL, LINES, FEW_LINES, FEW_GROUPS = 32, 4, 2, 8  # letters in a line of a label; lines, and with more than a few groups
WARM_UP, FLAT = 0.3, 2.5  # the first part of training may lie out of sight where it would flatten the rest so many times
INCH_A_GROUP, INCH_A_LINE = 0.32, 0.15
BELOW = 7  # points by which seeds stand below their mean


def write_figure(comparison: Comparison, rows: Sequence[Row], path: Path) -> None:
    """Draw a PNG of the first rows, in their order."""
    figure = draw(comparison, rows)
    write_whole(path, lambda file: figure.savefig(file, format="png"))


def draw(comparison: Comparison, rows: Sequence[Row]) -> Figure:
    """A figure of the first rows, in their order, and of the baseline's."""
    shown = _with_baseline(rows, MOST_GROUPS)
    looks = _looks(_with_baseline(rows, MOST_CURVES))
    curves = {id(row.group): found for row in shown if id(row.group) in looks and (found := _curves(row.group, comparison))}
    labels = ["\n".join(_lines(row.label, LINES if len(shown) <= FEW_GROUPS else FEW_LINES)) for row in shown]
    heights = [max(INCH_A_GROUP, INCH_A_LINE * (label.count("\n") + 1) + 0.1) for label in labels]
    size = (10.0 if curves else 7.5, max(sum(heights) + 1.0, 3.4 if curves else 1.6))
    figure = Figure(figsize=size, dpi=180, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    if curves:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1])
        _draw_curves(left, comparison, [row for row in shown if id(row.group) in curves], looks, curves)
        if len(curves) < len(rows):
            left.set_title(f"{len(curves)} of {len(rows)} groups", fontsize=8, color=GREY, loc="left")
    else:
        right = figure.subplots()
    _draw_intervals(right, comparison, shown, looks, labels, heights, decimals(rows))
    if len(shown) < len(rows):
        right.set_title(f"{len(shown)} of {len(rows)} groups", fontsize=8, color=GREY, loc="left")
    figure.supxlabel(_legend(shown, bool(curves)), fontsize=8, color=GREY)
    return figure


def _with_baseline(rows: Sequence[Row], most: int) -> list[Row]:
    """The first rows, the baseline's among them."""
    if len(rows) <= most:
        return list(rows)
    others = [row for row in rows if not row.baseline][: most - 1]
    return [row for row in rows if row.baseline or any(row is other for other in others)]


def _looks(rows: Sequence[Row]) -> dict[int, tuple[str, str]]:
    """Colour and mark of each group, by its id."""
    found = iter(LOOKS)
    return {id(row.group): (GREY, "o") if row.baseline else next(found) for row in rows}


def _lines(label: str, most: int) -> list[str]:
    lines = textwrap.wrap(label, LABEL, break_on_hyphens=False) or [""]
    return lines if len(lines) <= most else textwrap.wrap(shorten(label, LABEL * most - 12), LABEL, break_on_hyphens=False)


# Curves


def _curves(group: Group, comparison: Comparison) -> list[tuple[np.ndarray, np.ndarray]]:
    """Steps and values of the metric's course in each run of a group, of those that have recorded it."""
    name = curve_name(comparison)
    found = [run.curves[name] for run in group.runs if name in run.curves]
    return [(np.array(steps), np.array(values)) for steps, values in found if len(steps) > 1 and (np.diff(steps) > 0).all()]


def curve_name(comparison: Comparison) -> str:
    """The metric whose course is shown: on validation data where the metric is of the test."""
    return comparison.metric.replace("test/", "val/", 1)


def steps_an_epoch(run: Run) -> float | None:
    """The number of steps in an epoch, of runs of one phase that tell it."""
    steps, epochs = run.result.get("steps"), run.result.get("epochs")
    return steps / epochs if steps and epochs and run.result.get("phases", 1) == 1 else None


def in_phases(run: Run, steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, (..., steps), with a gap where a phase of the run begins: no line leads from one to the next."""
    places = np.searchsorted(steps, run.begins, side="right")
    return np.insert(steps.astype(float), places, run.begins), np.insert(values, places, np.nan, axis=-1)


def _draw_curves(
    axes: Axes,
    comparison: Comparison,
    rows: Sequence[Row],
    looks: dict[int, tuple[str, str]],
    curves: dict[int, list[tuple[np.ndarray, np.ndarray]]],
) -> None:
    epochs = [steps_an_epoch(row.group.runs[0]) for row in rows]
    by_epoch = all(epochs)
    ends, bands = [], []
    for row, unit in zip(rows, epochs, strict=True):
        (colour, mark), found = looks[id(row.group)], curves[id(row.group)]
        scale = 1.0 / unit if by_epoch and unit else 1.0
        steps, values = together(found)
        if len(row.group.runs) == 1:
            steps, values = in_phases(row.group.runs[0], steps, values)
        x, middle = steps * scale, values.mean(0)
        axes.plot(
            x,
            middle,
            marker=mark,
            markersize=4,
            markevery=max(1, len(x) // 8),
            linewidth=1.6,
            linestyle="--" if row.baseline else "-",
            color=colour,
            zorder=4 if row.baseline else 3,
        )
        deviation = values.std(0, ddof=1) if len(found) > 1 else np.zeros_like(middle)
        axes.fill_between(x, middle - deviation, middle + deviation, color=colour, alpha=0.15, linewidth=0)
        for own_steps, own_values in found:  # where other seeds had stopped
            rest = own_steps >= (steps[-1] if len(steps) else 0)
            if rest.sum() > 1:
                axes.plot(own_steps[rest] * scale, own_values[rest], color=colour, alpha=0.4, linewidth=0.8)
        for step in (step for run in row.group.runs for step in run.begins):
            axes.axvline(step * scale, ymax=0.06, color=colour, linewidth=1.6, zorder=2)
        ends.append(max(own_steps[-1] for own_steps, _ in found) * scale)
        bands += [(x, middle - deviation), (x, middle + deviation)]
    _focus(axes, bands, WARM_UP * max(ends), bool(comparison.larger))
    axes.set_xlabel("epoch" if by_epoch else "step", fontsize=9)
    format_axis(axes, curve_name(comparison), "y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def together(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The steps that lie within every run, and the runs' values there, one row a run; between its steps a run is a line."""
    first, last = max(steps[0] for steps, _ in found), min(steps[-1] for steps, _ in found)
    steps = np.unique(np.concatenate([steps for steps, _ in found]))
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.stack([np.interp(steps, *one) for one in found])


def _focus(axes: Axes, edges: Sequence[tuple[np.ndarray, np.ndarray]], start: float, larger: bool) -> None:
    """Leave out of sight what happened before `start` only, if it would flatten the rest."""
    whole = np.concatenate([edge for _, edge in edges])
    late = np.concatenate([edge[x >= start] for x, edge in edges])
    whole, late = whole[np.isfinite(whole)], late[np.isfinite(late)]
    if len(late) == 0 or np.ptp(whole) <= FLAT * np.ptp(late) or np.ptp(late) == 0:
        return
    margin = 0.1 * np.ptp(late)
    if larger:
        axes.set_ylim(late.min() - margin, whole.max() + margin)
    else:
        axes.set_ylim(whole.min() - margin, late.max() + margin)


# Intervals


def _draw_intervals(
    axes: Axes,
    comparison: Comparison,
    rows: Sequence[Row],
    looks: dict[int, tuple[str, str]],
    labels: Sequence[str],
    heights: Sequence[float],
    digits: int,
) -> None:
    """A line for each group: a point for each seed, the mean with its interval, and both in numbers."""
    places = np.cumsum(heights) - np.array(heights) / 2
    values = [np.array(list(row.group.metric(comparison.metric).values())) for row in rows]
    known = np.concatenate(values)
    known = known[np.isfinite(known)]
    if len(known):
        spread = np.ptp(known) or abs(known[0]) * 0.01 or 1.0
        low, high = known.min() - 0.45 * spread, known.max() + 0.45 * spread
        axes.set_xlim(low, high)
    texts = []
    below = offset_copy(axes.transData, axes.get_figure(root=True), y=-BELOW, units="points")
    for row, place, seeds in zip(rows, places, values, strict=True):
        colour, mark = looks.get(id(row.group), (DARK, "o"))
        if len(seeds) > 1:
            axes.scatter(seeds, np.full(len(seeds), place), 16, colour, alpha=0.45, linewidths=0, transform=below)
        if row.interval:
            axes.plot(row.interval, [place, place], color=colour, linewidth=2, zorder=3, solid_capstyle="butt")
            for edge, limit, arrow in ((row.interval[0], low, "<"), (row.interval[1], high, ">")):
                if not low <= edge <= high:  # goes on beyond the picture
                    inside = limit + 0.012 * (low + high - 2 * limit)
                    axes.plot([inside], [place], arrow, color=colour, markersize=6, zorder=5)
        if math.isfinite(row.mean):
            axes.plot(
                [row.mean], [place], mark, color=colour, markersize=6, markeredgecolor="white", markeredgewidth=0.8, zorder=4
            )
            texts.append(_numbers(row, digits, is_accuracy(comparison.metric)))
        else:
            bad = int((~np.isfinite(seeds)).sum())
            texts.append(f"no mean: {bad} of {len(seeds)} runs\nwithout a number")
        if row.baseline and math.isfinite(row.mean) and len(rows) > 1:
            axes.axvline(row.mean, color=GREY, linestyle="--", linewidth=1, zorder=1)
    axes.set_ylim(sum(heights), 0)
    axes.set_yticks(places, labels, fontsize=8, parse_math=False)
    for row, tick in zip(rows, axes.get_yticklabels(), strict=True):
        tick.set_color(looks.get(id(row.group), (DARK, ""))[0])
        tick.set_fontweight("bold" if row.baseline and len(rows) > 1 else "normal")
    numbers = axes.secondary_yaxis("right")
    numbers.set_yticks(places, texts, fontsize=8)
    numbers.tick_params(length=0)
    numbers.spines["right"].set_visible(False)
    format_axis(axes, comparison.metric, "x")
    axes.tick_params(axis="y", length=0)


def _numbers(row: Row, digits: int, percent: bool) -> str:
    if percent:
        row = replace(row, mean=100 * row.mean, deviation=None if row.deviation is None else 100 * row.deviation)
    return mean(row, max(digits - 2, 0) if percent else digits) + " *" * row.significant


def _legend(rows: Sequence[Row], curves: bool) -> str:
    parts = ["points: seeds"] if any(row.n > 1 for row in rows) else ["one seed each"]
    if any(row.interval for row in rows):
        parts.append("lines: mean with 95 % interval")
    if any(row.deviation is not None for row in rows):
        parts.append("bands and ±: standard deviation" if curves else "±: standard deviation")
    if curves and any(run.begins for row in rows for run in row.group.runs):
        parts.append("strokes below: next phase")
    if len(rows) > 1:
        parts.append("dashed: baseline")
    if any(row.significant for row in rows):
        parts.append("*: corrected p < 0.05")
    return "; ".join(parts)


def format_axis(axes: Axes, metric: str, which: Literal["x", "y"]) -> None:
    """Name the axis, in percent for an accuracy, and leave out frames."""
    split, _, name = metric.partition("/")
    name = {"acc": "accuracy"}.get(name, name)
    words = f"{ {'val': 'validation'}.get(split, split) } {name}"
    axis = axes.xaxis if which == "x" else axes.yaxis
    if is_accuracy(metric):
        axis.set_major_formatter(lambda value, place: f"{100 * value:g}")
        words += ", %"
    axis.set_major_locator(MaxNLocator(5))
    axis.set_label_text(words, fontsize=9, parse_math=False)  # a dollar is a dollar
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=which, alpha=0.25)
