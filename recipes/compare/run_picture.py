"""The picture of one run: loss, the metric that chose the best model, the learning rate, its phases. Nothing here imports torch."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plugins.errors import RecipeError
from recipes.compare.figure import DARK, GREY, LOOKS, format_axis, in_phases, steps_an_epoch
from recipes.compare.notes import shorten
from recipes.compare.runs import Run
from recipes.compare.units import Metric
from recipes.config.effect import words_with_effect
from recipes.config.errors import printable
from recipes.config.kinds import is_number
from recipes.config.run_files import METRICS, PICTURE
from recipes.store.files import write_whole
from recipes.store.shapes import read_result

LARGEST = 20_000_000  # bytes of metrics.csv, whose reading would take seconds
SPLITS = {"train": ("training", *LOOKS[1], "--"), "val": ("validation", *LOOKS[0], "-")}
RATE, PHASES = LOOKS[2][0], LOOKS[3][0]
STEEP = 20  # times that a loss falls, from which on its axis is logarithmic
FEW = 30  # points of a curve, up to which each has a mark
PANEL = 3.7  # inches that a metric is wide
BELOW = -0.145  # of an axis' height, where its unit stands
MOST_BARS = 6  # techniques whose share of the training is drawn
LONGEST = 90  # letters of the title
Curve = tuple[np.ndarray, np.ndarray]


def write_picture(folder: Path) -> bool:
    """Draw run.png in a run's folder; whether there was anything to draw.

    Raises:
        RecipeError: the run cannot be read, its curves are too long, or the picture cannot be written.
        OSError: the run has left nothing.
    """
    path = folder / METRICS
    if not path.is_file():
        return False
    if path.stat().st_size > LARGEST:
        raise RecipeError(f"{path} is larger than {LARGEST:,} bytes")
    result = read_result(folder)
    figure = draw_run(Run(folder, str(result.get("status")), result))
    if figure is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that no font has
        write_whole(folder / PICTURE, lambda file: figure.savefig(file, format="png"))
    return True


def draw_run(run: Run) -> Figure | None:
    """The figure of a run; None where it has recorded no curve."""
    named = {name: np.array(curve, float) for name, curve in run.curves.items()}
    curves: dict[str, Curve] = {
        name: in_phases(run, both[0], np.where(np.isfinite(both[1]), both[1], np.nan)) for name, both in named.items()
    }
    shown = [name for name in _metrics(run) if any(f"{split}/{name}" in curves for split in SPLITS)]
    rated = "lr" in curves and len(curves["lr"][0]) > 1
    if not shown:
        return None
    bars = _shares(run.config)
    number, below = len(shown) + rated, 0.6 + 0.22 * len(bars) if bars else 0.0
    width, height = PANEL * number + 0.3, 3.5 + below  # inches: places are given, since to find them takes as long as to draw
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    unit = steps_an_epoch(run)
    panels = [
        figure.add_axes(((PANEL * place + 0.7) / width, (below + 0.85) / height, (PANEL - 0.75) / width, 1.85 / height))
        for place in range(number)
    ]
    for axes, name in zip(panels, shown, strict=False):
        _draw_metric(axes, name, curves, unit)
    if rated:
        steps, rates = curves["lr"]
        panels[-1].plot(steps / (unit or 1), rates, color=RATE, linewidth=1.6, marker="." if len(steps) <= FEW else "")
        panels[-1].set_ylim(bottom=0)
        _label(panels[-1], "learning rate", "lr", "rate")
    last = _last_step(run, curves)
    for axes in panels:
        _mark(axes, run, unit)
        axes.set_xlim(0, 1.015 * last / (unit or 1))
        axes.set_xlabel("epoch" if unit else "step", fontsize=9)
        axes.xaxis.set_label_coords(0.5, BELOW)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=not unit or last / unit > 3))
    if bars:
        _draw_shares(figure.add_axes((1.9 / width, 0.8 / height, (width - 2.1) / width, (below - 0.6) / height)), bars)
    entries = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="lower center", ncols=len(entries), fontsize=8, frameon=False)
    figure.suptitle(_title(run), fontsize=9.5, color=DARK, parse_math=False)
    return figure


def _metrics(run: Run) -> list[str]:
    """The loss, and the metric that chose the best model."""
    return list(dict.fromkeys(["loss", str(run.result.get("monitor") or "val/acc").partition("/")[2]]))


def _title(run: Run) -> str:
    """What was trained, and what came of it."""
    options = [name for group in ("data", "model") for name in run.result.get("choices", {}).get(group, ())]
    words = [word for word in words_with_effect(run.result.get("command") or ()) if word.split("=")[0] not in ("data", "model")]
    first = str(run.config.get("name") or "") or " · ".join([*options, *words]) or "a run"
    parts = [f"seed {run.seed}", run.status]
    steps, best = run.result.get("steps"), run.result.get("best_step")
    parts += [f"best step {best:,} of {steps:,}"] if isinstance(best, int) and isinstance(steps, int) else []
    monitor = str(run.result.get("monitor") or "")
    for name in dict.fromkeys([monitor, monitor.replace("val/", "test/", 1)]):
        value, metric = run.metrics.get(name, math.nan), Metric(name)
        parts += [f"{metric.title} {metric.text(value)}{metric.unit}"] if math.isfinite(value) else []
    return f"{shorten(printable(first), LONGEST)}\n{printable(', '.join(parts))}"


def _last_step(run: Run, curves: Mapping[str, Curve]) -> float:
    steps = run.result.get("steps")
    return float(max([steps if isinstance(steps, int) else 0, 1, *(each[0][-1] for each in curves.values() if len(each[0]))]))


def _draw_metric(axes: Axes, name: str, curves: Mapping[str, Curve], unit: float | None) -> None:
    """Training and validation over the steps."""
    known: list[float] = []
    for split, (label, colour, mark, dash) in SPLITS.items():
        if f"{split}/{name}" in curves:
            steps, values = curves[f"{split}/{name}"]
            every = mark if len(steps) <= FEW else ""
            axes.plot(steps / (unit or 1), values, dash, color=colour, marker=every, markersize=3.5, linewidth=1.6, label=label)
            known += values[np.isfinite(values)].tolist()
    if name.rpartition("/")[2] == "loss" and known and min(known) > 0 and max(known) > STEEP * min(known):
        axes.set_yscale("log")
    _label(axes, re.sub(r"\bacc\b", "accuracy", name.replace("_", " ")), f"val/{name}", "")


def _label(axes: Axes, title: str, metric: str, unit: str) -> None:
    """A title above and the unit beside; numbers of accuracies in percent."""
    axes.set_title(title, y=1.0, fontsize=10, color=DARK, parse_math=False)  # at its place, which else is sought
    if axes.get_yscale() == "log":
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    else:
        format_axis(axes, metric, "y")
    percent = axes.get_ylabel().endswith("%")
    axes.set_ylabel("%" if percent else unit, fontsize=9, parse_math=False)


def _mark(axes: Axes, run: Run, unit: float | None) -> None:
    """The best step, and where a phase began."""
    best = run.result.get("best_step")
    if isinstance(best, int) and best > 0:
        axes.axvline(best / (unit or 1), color=GREY, linestyle=":", linewidth=1.3, label="best step", zorder=1)
    for step in run.begins:
        axes.axvline(step / (unit or 1), color=PHASES, linewidth=1.3, label="next phase", zorder=1)


def _shares(config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The share of the training in which a technique acts, of those that act in a part of it."""
    found = {}
    for options in config.values():
        for name, option in options.items() if isinstance(options, Mapping) else ():
            when = option.get("when") if isinstance(option, Mapping) else None
            ends = [end for end in when if is_number(end)] if isinstance(when, list) else []
            if len(ends) == 2 and 0 <= ends[0] < ends[1] <= 1 and ends != [0, 1]:
                found[printable(str(name))] = (float(ends[0]), float(ends[1]))
    return dict(list(found.items())[:MOST_BARS])


def _draw_shares(axes: Axes, bars: Mapping[str, tuple[float, float]]) -> None:
    """A bar for each technique that acts in a part of the training only."""
    for place, (begin, end) in enumerate(bars.values()):
        axes.barh(place, 100 * (end - begin), left=100 * begin, height=0.6, color=LOOKS[4][0])
    axes.set_yticks(range(len(bars)), [shorten(name, 24) for name in bars], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("acts in this part of the training, %", fontsize=8)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
