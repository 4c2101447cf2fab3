"""What a comparison shows of each technique: its numbers, histograms and pictures. Nothing here imports torch."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

from recipes.compare.groups import Group
from recipes.compare.plots import BINS, STEPS, curves, figure
from recipes.compare.runs import LARGEST_PICTURE, Run
from recipes.compare.units import number, plain
from recipes.config.untrusted import read_bytes

PICTURES = 8  # of one technique
HISTOGRAMS = 6  # groups whose histograms are shown


def used_techniques(group: Group) -> list[str]:
    """The techniques of a group's runs."""
    return list(dict.fromkeys(name for run in group.runs for name in run.techniques))


def techniques(groups: Sequence[Group], runs: Sequence[Run], points: int) -> list[dict[str, Any]]:
    """What each technique recorded, for those that recorded anything."""
    names = dict.fromkeys(name for run in runs for name in run.techniques)
    names |= dict.fromkeys(histogram.partition("/")[0] for run in runs for histogram in run.histograms)
    columns = dict.fromkeys(column for run in runs for column, (steps, _) in run.curves.items() if len(steps) > 1)
    found = []
    for name in names:
        own = curves(groups, [column for column in columns if owner(column) == name], points)
        own_histograms = histograms(name, groups)
        if own or own_histograms or technique_pictures(name, groups):
            found.append({"name": name, "curves": own, "histograms": own_histograms})
    return found


def technique_pictures(name: str, groups: Sequence[Group]) -> dict[int, str]:
    """A technique's picture as data, one for each group; the same picture is not shown twice."""
    found: dict[int, str] = {}
    for place, group in enumerate(groups):
        path = next((run.pictures[name] for run in group.runs if name in run.pictures), None)
        if path is not None and len(found) < PICTURES:
            source = f"data:image/png;base64,{base64.b64encode(read_bytes(path, LARGEST_PICTURE)).decode()}"
            if source not in found.values():
                found[place] = source
    return found


def histograms(technique: str, groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """A technique's histograms over steps as heat maps: by name, then by group, each of the group's first seed that has it."""
    import plotly.graph_objects as go

    found: dict[str, dict[str, Any]] = {}
    for place, group in enumerate(groups):
        run = next((run for run in group.runs if any(owner(name) == technique for name in run.histograms)), None)
        if run is None or len({place for entry in found.values() for place in entry}) >= HISTOGRAMS:
            continue
        for name, entries in run.histograms.items():
            if owner(name) == technique:
                steps, middles, shares = heat_map(entries)
                trace = go.Heatmap(x=steps, y=middles, z=shares, meta={"seed": run.seed})
                titles = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": plain(name)}}}
                found.setdefault(name, {})[str(place)] = figure([trace], **titles)
    return found


def owner(name: str) -> str:
    """The technique that recorded a name."""
    return name.partition("/")[0]


def heat_map(
    entries: Sequence[tuple[int, float, float, list[int]]],
) -> tuple[list[int], list[float | None], list[list[float | None]]]:
    """Histograms with bins of their own laid over common bins: steps, middles of the bins, percent of values in each."""
    kept = entries[:: max(1, math.ceil(len(entries) / STEPS))]
    bottom, top = min(low for _, low, _, _ in kept), max(high for _, _, high, _ in kept)
    if bottom == top:
        bottom, top = bottom - 0.5, top + 0.5
    width = (top - bottom) / BINS
    columns = []
    for _, low, high, counts in kept:
        column, total = [0.0] * BINS, sum(counts) or 1
        own = (high - low) / len(counts)
        for place, count in enumerate(counts):
            left = (low + place * own - bottom) / width
            right = left + own / width
            first, last = min(int(left), BINS - 1), min(int(right), BINS - 1)
            for bin in range(first, last + 1):  # a bin's count is spread evenly over its width
                overlap = min(right, bin + 1) - max(left, bin) if right > left else 1.0
                column[bin] += 100 * count / total * (max(0.0, overlap) / (right - left) if right > left else 1.0)
        columns.append(column)
    middles = [number(bottom + (place + 0.5) * width) for place in range(BINS)]
    shares = [[number(round(column[place], 3)) for column in columns] for place in range(BINS)]
    return [step for step, *_ in kept], middles, shares
