"""The figures of a comparison's report, as plain data for plotly.

Each trace says in `meta.group` whose it is: `report_plots.js` gives it the group's colour and leaves out whom nobody chose.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from recipes.compare.groups import Group, tidy
from recipes.compare.notes import shorten
from recipes.compare.runs import Run, named
from recipes.compare.statistics import Row
from recipes.compare.summaries import average
from recipes.compare.units import Metric, number, plain
from recipes.config.effect import has_effect
from recipes.config.quoting import show

FEWEST_POINTS, POINTS = 40, 300  # of a curve; longer ones are averaged over neighbouring points
NUMBERS = 400_000  # in all curves together, so that a page of many groups still loads fast
BINS, STEPS = 40, 60  # of a heat map of histograms
MOST_TICKS = 16  # of categories on an axis
CATEGORIES = 6  # a number that takes no more values than these is shown as a category, if it is one that people type
LONGEST_NUMBER = 8  # letters of a number that people type
AXIS_NAME, AXIS_TICK = 48, 40  # letters on an axis of the parallel coordinates
NOTHING = "none"
SPLITS = {"val": "validation", "train": "training", "gap": "training less validation", "step": "of the batch at each step"}


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
            for begin in group.runs[0].begins if len(group.runs) == 1 else ():  # no line leads from one phase to the next
                at = bisect_right(steps, begin)
                steps[at:at], means[at:at], deviations[at:at], seeds[at:at] = [begin], [math.nan], [0.0], [1]
            trace = go.Scatter(
                x=[number(step) for step in steps],
                y=[number(scale * mean) for mean in means],
                error_y={"array": [number(scale * deviation) for deviation in deviations]},
                customdata=seeds if min(seeds) < max(seeds) else None,
                mode="lines",
                meta={
                    "group": place,
                    "epochs": in_epochs(group.runs),
                    "begins": [step for run in group.runs for step in run.begins],
                    "seeds": max(seeds),
                },
            )
            traces.append(trace)
        if traces:
            found[name] = figure(traces, yaxis={"title": {"text": plain(Metric(name).head)}})
    return found


def in_epochs(runs: Sequence[Run]) -> list[list[float]]:
    """Steps, and the epochs that are done there, of which a phase of its own length has its own: means over runs; empty where none tells."""
    told = [run.result for run in runs if run.result.get("epochs") and run.result.get("steps")]
    ways = [[phase for phase in result.get("phase_results") or [result] if phase["steps"]] for result in told]
    if len({len(phases) for phases in ways}) > 1:
        ways = [[result] for result in told]
    places = [[(phase["steps"], phase["epochs"]) for phase in phases] for phases in ways]
    means = [[statistics.fmean(values) for values in zip(*of_phase, strict=True)] for of_phase in zip(*places, strict=True)]
    return [[0.0, *accumulate(values)] for values in zip(*means, strict=True)]


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
                customdata=[*map(named, seeds)],
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
    if len(pairs) < 2:
        return {}
    dimensions = []
    for name, values in settings.items():
        is_option = any(name in group.options for group in groups)
        if is_option or len({value for value in values if value is not None}) > 1:  # else an option says it
            dimensions.append(dimension(name, [values[place] for place, _ in pairs]))
    if not dimensions:
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
