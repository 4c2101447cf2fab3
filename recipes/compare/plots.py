"""The figures of a comparison's report, as plain data for plotly.

Each trace says in `meta.group` whose it is: `report.js` gives it the group's colour and leaves out whom nobody chose.
"""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from plugins.metric import is_accuracy
from recipes.compare.comparison import shorten
from recipes.compare.runs import LARGEST_PICTURE, Group, Run, tidy
from recipes.compare.statistics import Row
from recipes.config.effect import has_effect
from recipes.config.quoting import show
from recipes.config.untrusted import read_bytes

FEWEST_POINTS, POINTS = 40, 300  # of a curve; longer ones are averaged over neighbouring points
NUMBERS = 400_000  # in all curves together, so that a page of many groups still loads fast
PICTURES = 8  # of one technique
HISTOGRAMS = 6  # groups whose histograms are shown
BINS, STEPS = 40, 60  # of a heat map of histograms
MOST_TICKS = 16  # of categories on an axis
CATEGORIES = 6  # a number that takes no more values than these is shown as a category, if it is one that people type
LONGEST_NUMBER = 8  # letters of a number that people type
AXIS_NAME, AXIS_TICK = 48, 40  # letters on an axis of the parallel coordinates
NOTHING = "none"
SPLITS = {"val": "validation", "train": "training", "gap": "training less validation", "step": "of the batch at each step"}
PRECISION, RECALL, F1 = "precision", "recall", "F1"


class Metric:
    """How a metric is written: accuracies in percent."""

    def __init__(self, name: str, digits: int = 4) -> None:
        self.name = name
        percent = (100.0, max(0, digits - 2), " %", " points")
        self.scale, self.decimals, self.unit, self.points = percent if is_accuracy(name) else (1.0, digits, "", "")
        split, _, rest = name.partition("/")
        spelled = {"val": "validation", "train": "training"}.get(split, split)
        words = rest.replace("/", " ").replace("_", " ").replace("acc", "accuracy")
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


def figure(traces: Iterable[Any], **layout: Any) -> dict[str, Any]:
    """A figure as plain data, without plotly's own template."""
    import plotly.graph_objects as go

    made = go.Figure([*traces])
    made.update_layout(template=None, **layout)
    return made.to_plotly_json()


def points_of_curves(groups: Sequence[Group]) -> int:
    """How many points a curve may have."""
    columns = {name for group in groups for run in group.runs for name in run.curves}
    return max(FEWEST_POINTS, min(POINTS, NUMBERS // max(1, 3 * len(groups) * len(columns))))


def curve_names(runs: Sequence[Run]) -> list[str]:
    """The columns of metrics.csv that can be drawn and belong to no technique."""
    owned = {name for run in runs for name in run.techniques}
    names = dict.fromkeys(name for run in runs for name, (steps, _) in run.curves.items() if len(steps) > 1)
    kept = [name for name in names if name != "epoch" and not name.startswith("test/") and name.partition("/")[0] not in owned]
    order = [*SPLITS]
    return sorted(kept, key=lambda name: order.index(split) if (split := name.partition("/")[0]) in order else len(order))


def curves(groups: Sequence[Group], names: Sequence[str], points: int) -> dict[str, Any]:
    """For each column a figure: for each group the mean over seeds, with the standard deviation as its error."""
    import plotly.graph_objects as go

    found = {}
    for name in names:
        scale = Metric(name).scale
        traces = []
        for place, group in enumerate(groups):
            steps, means, deviations, seeds = average([run.curves[name] for run in group.runs if name in run.curves], points)
            if not steps:
                continue
            lengths = [
                run.result["steps"] / run.result["epochs"]
                for run in group.runs
                if run.result.get("epochs") and run.result.get("steps")
            ]
            trace = go.Scatter(
                x=[number(step) for step in steps],
                y=[number(scale * mean) for mean in means],
                error_y={"array": [number(scale * deviation) for deviation in deviations]},
                customdata=seeds if min(seeds) < max(seeds) else None,
                mode="lines",
                meta={"group": place, "epoch": number(statistics.fmean(lengths)) if lengths else None, "seeds": max(seeds)},
            )
            traces.append(trace)
        if traces:
            found[name] = figure(traces, yaxis={"title": {"text": plain(Metric(name).head)}})
    return found


def average(
    curves: Sequence[tuple[list[int], list[float]]], points: int
) -> tuple[list[float], list[float], list[float], list[int]]:
    """Steps, and for each the mean and the standard deviation over the curves that have it, and how many have.

    Longer curves are cut into at most `points` stretches of neighbouring steps, and each is averaged.
    """
    every = np.unique(np.concatenate([np.array(steps, float) for steps, _ in curves] or [np.array([])]))
    table = np.full((len(curves), len(every)), np.nan)
    for row, (steps, values) in zip(table, curves, strict=True):
        row[np.searchsorted(every, steps)] = values
    table[~np.isfinite(table)] = np.nan
    seeds = np.isfinite(table).sum(0)
    table, every, seeds = table[:, seeds > 0], every[seeds > 0], seeds[seeds > 0]
    if not len(every):
        return [], [], [], []
    means = np.nansum(table, 0) / seeds
    squares = np.nansum((table - means) ** 2, 0)
    deviations = np.sqrt(squares / np.maximum(1, seeds - 1))
    width = math.ceil(len(every) / points)
    starts = np.arange(0, len(every), width)
    lengths = np.diff([*starts, len(every)])
    averaged = [(np.add.reduceat(values, starts) / lengths).tolist() for values in (every, means, deviations)]
    return averaged[0], averaged[1], averaged[2], np.minimum.reduceat(seeds, starts).tolist()


def cost(rows: Sequence[Row], metric: Metric, baseline: int) -> dict[str, Any]:
    """For each cost a figure: the metric against it, with standard deviations."""
    import plotly.graph_objects as go

    longest = max((row.seconds for row in rows if not math.isnan(row.seconds)), default=0.0)
    unit, length = ("hours", 3600.0) if longest > 5400 else ("minutes", 60.0) if longest > 90 else ("seconds", 1.0)
    costs = {
        "time": ("seconds", f"time of a run, {unit}", length),
        "memory": ("peak_memory", "peak memory, MB", 1e6),
        "parameters": ("parameters", "parameters of the model", 1.0),
    }
    found = {}
    for name, (key, title, scale) in costs.items():
        traces, seen = [], set()
        for place, row in enumerate(rows):
            values = [value / scale for run in row.group.runs if isinstance(value := run.result.get(key), (int, float))]
            values = [value for value in values if math.isfinite(value)]
            if not values or math.isnan(row.mean):
                continue
            seen.update(values)
            trace = go.Scatter(
                x=[number(statistics.fmean(values))],
                y=metric.scaled([row.mean]),
                error_x={"array": [number(statistics.stdev(values))]} if len(values) > 1 else None,
                error_y={"array": metric.scaled([row.deviation])} if row.deviation is not None else None,
                mode="markers",
                meta={"group": place, "seeds": row.n},
            )
            traces.append(trace)
        if traces and (name != "parameters" or len(seen) > 1):
            mean = rows[baseline].mean
            line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": metric.scale * mean, "y1": metric.scale * mean}
            found[name] = figure(
                traces,
                xaxis={"title": {"text": title}},
                yaxis={"title": {"text": plain(metric.head)}},
                shapes=[] if math.isnan(mean) else [line],
            )
    return found


def forest(rows: Sequence[Row], metric: Metric, baseline: int) -> dict[str, Any]:
    """Each seed, the mean and its interval; beside it the difference to the baseline and its interval. A line a group."""
    import plotly.graph_objects as go

    traces = []
    for place, row in enumerate(rows):
        name, seeds = str(place), row.group.metric(metric.name)
        traces.append(
            go.Scatter(
                x=metric.scaled(seeds.values()),
                y=[name] * len(seeds),
                customdata=[*seeds],
                mode="markers",
                meta={"group": place, "part": "seeds"},
            )
        )
        middle = [(row.mean, row.interval, "x", "mean")]
        if row.difference is not None and place != baseline:
            middle.append((row.difference, row.difference_interval, "x2", "difference"))
        for value, interval, axis, part in middle:
            error = None
            if interval is not None:
                above, below = metric.scaled([interval[1] - value, value - interval[0]])
                error = {"array": [above], "arrayminus": [below], "symmetric": False}
            traces.append(
                go.Scatter(
                    x=metric.scaled([value]),
                    y=[name],
                    error_x=error,
                    xaxis=axis,
                    mode="markers",
                    meta={"group": place, "part": part},
                )
            )
    zero = {"type": "line", "xref": "x2", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    differences = any(trace.meta["part"] == "difference" for trace in traces)
    left = {"domain": [0, 0.56] if differences else [0, 1], "title": {"text": plain(metric.head)}}
    right = {"domain": [0.62, 1], "title": {"text": "difference" + (", points" if metric.unit else "")}}
    return figure(traces, xaxis=left, **({"xaxis2": right, "shapes": [zero]} if differences else {}))


def settings(groups: Sequence[Group], differing: Sequence[str]) -> dict[str, list[str | None]]:
    """In what groups differ: for each config group and key the value of each group, as it is typed; None where it has none."""
    found: dict[str, list[str | None]] = {}
    for name in dict.fromkeys(name for group in groups for name in group.options if has_effect(name)):
        found[name] = ["+".join(group.options.get(name, ())) or None for group in groups]
    named = all(group.options for group in groups)
    for key in differing:
        if named and key.endswith("_target_"):
            continue  # the option says the same in a word
        found[key] = [show(tidy(group.values[key])) if key in group.values else None for group in groups]
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def parallel(groups: Sequence[Group], settings: Mapping[str, Sequence[str | None]], metric: Metric) -> dict[str, Any]:
    """An axis for each setting in which runs differ, one for the metric, and a line a run."""
    import plotly.graph_objects as go

    pairs = [(place, run) for place, group in enumerate(groups) for run in group.runs]
    pairs = [(place, run) for place, run in pairs if math.isfinite(run.metrics.get(metric.name, math.nan))]
    dimensions = []
    for name, values in settings.items():
        is_option = any(name in group.options for group in groups)
        if is_option or len({value for value in values if value is not None}) > 1:  # else an option says it
            dimensions.append(dimension(name, [values[place] for place, _ in pairs]))
    if not dimensions or len(pairs) < 2:
        return {}
    metrics = metric.scaled(run.metrics[metric.name] for _, run in pairs)
    dimensions.append({"label": plain(metric.head), "values": metrics})
    line = {"color": metrics, "colorbar": {"title": {"text": plain(metric.head)}}}
    return figure([go.Parcoords(dimensions=dimensions, line=line, meta={"groups": [place for place, _ in pairs]})])


def dimension(name: str, values: Sequence[str | None]) -> dict[str, Any]:
    """An axis of the parallel coordinates: of numbers where there are many, of categories otherwise."""
    label = plain(shorten(name, AXIS_NAME))
    distinct = sorted(set(values), key=category_order)
    numbers = [as_number(value) for value in values]
    known = [value for value in numbers if value is not None]
    written = max((len(value) for value in values if value is not None), default=0)
    many = len(set(known)) > CATEGORIES or (len(set(known)) > 1 and written > LONGEST_NUMBER)
    if many and len(known) == sum(value is not None for value in values):
        logarithmic = min(known) > 0 and max(known) / min(known) > 100
        places = [None if value is None else math.log10(value) if logarithmic else value for value in numbers]
        low, high = (math.log10(end) if logarithmic else end for end in (min(known), max(known)))
        ticks = [low + (high - low) * part / 4 for part in range(5)]
        texts = [f"{10**tick if logarithmic else tick:.3g}" for tick in ticks]
        if None in values:  # below all numbers
            nowhere = low - (high - low) / 6
            places = [nowhere if place is None else place for place in places]
            ticks, texts = [nowhere, *ticks], [NOTHING, *texts]
        return {"label": label, "values": [number(place) for place in places], "tickvals": ticks, "ticktext": texts}
    order = {value: place for place, value in enumerate(distinct)}
    every = math.ceil(len(distinct) / MOST_TICKS)
    return {
        "label": label,
        "values": [order[value] for value in values],
        "tickvals": list(range(0, len(distinct), every)),
        "ticktext": [NOTHING if value is None else shorten(value, AXIS_TICK) for value in distinct[::every]],
        "range": [-0.15, len(distinct) - 0.85],
    }


def as_number(text: str | None) -> float | None:
    """The number that a value is; None where it is none."""
    try:
        return None if text is None else number(float(text))
    except ValueError:
        return None


def category_order(text: str | None) -> tuple[int, float, str]:
    """Nothing first, then numbers by size, then words."""
    value = as_number(text)
    return (0, 0.0, "") if text is None else (1, value, text) if value is not None else (2, 0.0, text)


def summed_confusion(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """For each task its classes and each group's counts, summed over seeds."""
    found: dict[str, dict[str, Any]] = {}
    for place, group in enumerate(groups):
        for run in group.runs:
            for task, (classes, matrix) in run.confusion.items():
                entry = found.setdefault(task, {"classes": classes, "counts": {}})
                if entry["classes"] != classes:
                    continue  # other data: not to be laid side by side
                sums = entry["counts"].setdefault(place, [[0] * len(classes) for _ in classes])
                entry["counts"][place] = [
                    [before + more for before, more in zip(row, added, strict=True)]
                    for row, added in zip(sums, matrix, strict=True)
                ]
    return found


def confusion_matrices(groups: Sequence[Group]) -> dict[str, Any]:
    """For each task its classes and each group's counts, for the script, which draws one at a time."""
    return {
        task: {
            "classes": [plain(shorten(name, 24)) for name in entry["classes"]],
            "counts": {str(place): counts for place, counts in entry["counts"].items()},
        }
        for task, entry in summed_confusion(groups).items()
    }


def class_results(groups: Sequence[Group]) -> dict[str, Any]:
    """For each task a figure for recall, precision and F1 each: a row a group, a column a class, in percent."""
    import plotly.graph_objects as go

    found: dict[str, Any] = {}
    for task, entry in summed_confusion(groups).items():
        classes = [plain(shorten(name, 24)) for name in entry["classes"]]
        scores = {place: class_scores(counts) for place, counts in entry["counts"].items()}
        found[task] = {}
        for score in (RECALL, PRECISION, F1):
            trace = go.Heatmap(
                x=list(range(len(classes))),
                y=[str(place) for place in scores],
                z=[[number(None if value is None else 100 * value) for value in scores[place][score]] for place in scores],
                meta={"rows": [*scores]},
            )
            ticks = {"tickvals": list(range(len(classes))), "ticktext": classes}
            found[task][score] = figure([trace], xaxis=ticks)
    return found


def class_scores(counts: Sequence[Sequence[int]]) -> dict[str, list[float | None]]:
    """Recall, precision and F1 of each class; None where a class neither occurs nor is predicted."""
    classes = range(len(counts))
    true = [sum(row) for row in counts]
    predicted = [sum(row[place] for row in counts) for place in classes]
    right = [counts[place][place] for place in classes]

    def share(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    return {
        RECALL: [share(right[place], true[place]) for place in classes],
        PRECISION: [share(right[place], predicted[place]) for place in classes],
        F1: [share(2 * right[place], true[place] + predicted[place]) for place in classes],
    }


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
