"""What evaluations of finished runs say of the values of one key, as a picture. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plugins.directions import is_accuracy
from recipes.compare.figure import DARK, LOOKS, format_axis
from recipes.compare.notes import shorten
from recipes.config.errors import printable
from recipes.store.files import write_whole

PANEL = 4.2  # inches that a metric is wide
LONGEST = 60  # letters of a run's name
Lines = Mapping[str, Mapping[str, Sequence[float]]]  # by metric and run, a number for each value of the key


def write_over_values(key: str, values: Sequence[float], lines: Lines, path: Path) -> None:
    """Draw a PNG."""
    figure = draw_over_values(key, values, lines)
    write_whole(path, lambda file: figure.savefig(file, format="png"))


def draw_over_values(key: str, values: Sequence[float], lines: Lines) -> Figure:
    """A panel for each metric, and in it a line for each run.

    Args:
        key: which has the values, such as adversarial.eps.
        values: of the key, in any order.
        lines: metrics in the order of the values.
    """
    names = list(dict.fromkeys(name for runs in lines.values() for name in runs))
    figure = Figure(figsize=(PANEL * len(lines), 3.2 + 0.2 * len(names)), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    order = sorted(range(len(values)), key=lambda place: values[place])
    for axes, (metric, runs) in zip(figure.subplots(1, len(lines), squeeze=False)[0], lines.items(), strict=True):
        for name, numbers in runs.items():
            colour, mark = LOOKS[names.index(name) % len(LOOKS)]
            dash = ("-", "--", ":")[names.index(name) // len(LOOKS) % 3]
            x, y = [values[place] for place in order], [numbers[place] for place in order]
            label = shorten(printable(name), LONGEST)
            axes.plot(x, y, dash, color=colour, marker=mark, markersize=4.5, linewidth=1.6, label=label)
        format_axis(axes, metric, "y")
        if is_accuracy(metric):
            axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel(key, fontsize=9, parse_math=False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(handles, labels, loc="outside lower center", fontsize=8, frameon=False)
    else:
        figure.suptitle(labels[0], fontsize=9, color=DARK, parse_math=False)
    return figure
