"""The report of a comparison: one HTML file that needs nothing beside it, with a table and interactive plots.

Python writes the table and the figures, `report.js` shows the figures of the groups that are chosen in the table.
"""

from __future__ import annotations

import base64
import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from plugins.metric import larger_is_better
from recipes.catalogue import UsageError, show
from recipes.compare.runs import Comparison, Group, Run
from recipes.compare.statistics import Row
from recipes.compare.table import arrange, decimals
from recipes.files import write_text

# The first is the baseline's. Chosen by a search: whichever way a reader's eyes see colours, two of them differ by 30 units of
# CIELAB or more, and each stands out from its background.
COLOURS = {
    "light": ["#222325", "#5f7bff", "#c5701d", "#1aa78b", "#84247c", "#725231", "#3419a9"],
    "dark": ["#edf6ff", "#9bb3fb", "#aa6d18", "#4bff96", "#d8477d", "#ffdd2d", "#9b53ff"],
}
MARKS = ("x", "circle", "square", "triangle-up", "diamond", "triangle-down", "cross")  # of the same groups
DASHES = ("solid", "dash", "dot", "dashdot")  # where there are more groups than colours

POINTS = 300  # of a curve; longer ones are averaged over neighbouring points
NUMBERS = 400_000  # in all curves together, so that a page of many groups still loads fast
LISTED = 3  # runs that did not finish which are listed without a click
PICTURES = 8  # of one technique
HISTOGRAMS = 6  # groups whose histograms are shown
BINS, STEPS = 40, 60  # of a heat map of histograms
MOST_TICKS = 16  # of categories on an axis
CATEGORIES = 6  # a number that takes no more values than these is shown as a category
NOTHING = "none"
ABSENT = '<span class="absent">–</span>'
SPLITS = {"val": "validation", "train": "training", "gap": "training less validation", "step": "of the batch at each step"}
PRECISION, RECALL, F1 = "precision", "recall", "F1"
# what the page may do: run its own scripts (WebGL needs compiled ones) and show its own pictures; it can reach no network
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"


def write_report(comparison: Comparison, rows: Sequence[Row], path: Path) -> None:
    """Write the report of a comparison whose groups have these rows, the best group first."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        raise UsageError('the report needs the package plotly: pip install "lightning-recipes[compare]"') from None
    page = Page(comparison, rows)
    folder = Path(__file__).parent
    parts = {
        "policy": POLICY,
        "title": escape(page.title),
        "style": (folder / "report.css").read_text(encoding="utf-8"),
        "body": page.body(),
        "data": embedded(page.data()),
        "plotly": get_plotlyjs(),
        "script": (folder / "report.js").read_text(encoding="utf-8"),
    }
    template = (folder / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
    write_text(path, text)


def embedded(value: object) -> str:
    """A value as JSON that cannot end the script element in which it stands."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class Page:
    """What stands on the page of a comparison."""

    def __init__(self, comparison: Comparison, rows: Sequence[Row]) -> None:
        self.comparison, self.metric = comparison, Metric(comparison.metric, decimals(rows))
        self.rows = arrange(rows, comparison.metric)
        self.groups = [row.group for row in self.rows]
        self.settings = settings(self.groups, comparison.differing)
        self.baseline = next((number for number, row in enumerate(self.rows) if row.baseline), 0)
        columns = {name for run in comparison.runs for name in run.curves}
        points = max(40, min(POINTS, NUMBERS // max(1, 3 * len(self.groups) * len(columns))))
        # the figures in one place, by section: a section is on the page where it has something to show
        self.figures: dict[str, Any] = {
            "curves": curves(self.groups, curve_names(comparison.runs), points),
            "cost": cost(self.rows, self.metric, self.baseline),
            "forest": forest(self.rows, self.metric, self.baseline),
            "parallel": parallel(self.groups, self.settings, self.metric),
            "classes": class_results(self.groups),
            "confusion": confusion_matrices(self.groups),
            "techniques": techniques(self.groups, comparison.runs, points),
        }

    @property
    def title(self) -> str:
        """Data and model, where all groups share them."""
        shared: list[str] = []
        for name in ("data", "model"):
            chosen = {tuple(group.options.get(name, ())) for group in self.groups}
            shared += chosen.pop() if len(chosen) == 1 else ()
        return " · ".join(shared) or "Comparison of runs"

    def data(self) -> dict[str, Any]:
        """What the script reads."""
        groups = []
        others = [number for number in range(len(self.rows)) if number != self.baseline]
        for number, row in enumerate(self.rows):
            turn, hue = (0, -1) if number == self.baseline else divmod(others.index(number), len(MARKS) - 1)
            look = {"colour": hue + 1, "mark": MARKS[hue + 1], "dash": DASHES[turn % len(DASHES)]}
            groups.append({"label": row.label, "short": plain(shorten(row.label)), **look})
        return {
            "colours": COLOURS,
            "groups": groups,
            "baseline": self.baseline,
            "larger": self.metric.larger_is_better,
            "figures": self.figures,
        }

    def body(self) -> str:
        """The page without its scripts."""
        figures = self.figures
        sections = [("table", "Table", self.table())]
        if figures["curves"]:
            sections.append(("curves", "Curves", curves_section(figures["curves"], self.comparison.metric)))
        sections.append(("seeds", "Seeds and intervals", forest_section(self.metric)))
        sections.append(("cost", "Cost", cost_section(figures["cost"])))
        if figures["parallel"]:
            sections.append(("parallel", "Hyperparameters", PARALLEL))
        if self.settings:
            sections.append(("differences", "Config differences", self.differences()))
        if figures["classes"]:
            sections.append(("classes", "Classes", classes_section(figures["classes"])))
            sections.append(("confusion", "Confusion", confusion_section(figures["confusion"], self.rows)))
        if figures["techniques"]:
            sections.append(("techniques", "Techniques", "".join(map(self.technique, figures["techniques"]))))
        links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections)
        parts = "".join(
            f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{escape(title)}</h2>{content}</section>'
            for name, title, content in sections
        )
        return f"{self.header()}{NAVIGATION.format(links=links)}<main>{parts}</main>"

    # The head

    def header(self) -> str:
        """Title, the result in a sentence, the facts, what a reader must know, and the runs that did not finish."""
        runs = self.comparison.runs
        seeds = sorted({run.seed for run in runs})
        facts = {
            "metric": self.metric.name,
            "baseline": self.rows[self.baseline].label,
            "groups": str(len(self.groups)),
            "finished runs": str(len(runs)),
            "seeds": ranges(seeds),
            "written": f"{datetime.now():%Y-%m-%d %H:%M}",
        }
        listed = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
        notes = "".join(f'<li class="note">{escape(note)}</li>' for note in self.comparison.notes)
        notes = f'<ul class="notes" aria-label="What to know before believing the table">{notes}</ul>' if notes else ""
        return (
            f'<header class="top"><p class="eyebrow">Comparison of training techniques</p><h1>{escape(self.title)}</h1>'
            f'<p class="lead">{self.summary()}</p><dl class="facts">{listed}</dl>{notes}{self.unfinished()}</header>'
        )

    def summary(self) -> str:
        """The result in a sentence or two."""
        best, base, metric = self.rows[0], self.rows[self.baseline], self.metric
        label = f"<b>{escape(best.label)}</b>"
        number = f"{metric.text(best.mean)}{metric.deviation(best.deviation)}{metric.unit}".replace(" %", "\u00a0%")
        if math.isnan(best.mean):
            return f"No group has a mean {metric.title}."
        if len(self.rows) == 1:
            return f"{label}: {metric.title} {number}."
        if best is base:
            return f"No group is better than the baseline {label} in its mean {metric.title}, {number}."
        sentence = f"{label} has the best mean {metric.title}: {number}"
        if best.difference is None:
            return f"{sentence}. It shares no seed with the baseline <b>{escape(base.label)}</b>."
        sentence += f", {metric.signed(best.difference)}{metric.points} against the baseline <b>{escape(base.label)}</b>"
        if best.p_corrected is None:
            return f"{sentence}. There are too few seeds to tell this from chance."
        said = "which is more than chance explains" if best.significant else "which chance may explain"
        return f"{sentence}, {said} (corrected p {probability(best.p_corrected, '= ')})."

    def unfinished(self) -> str:
        """The runs that are not in the table, and why."""
        runs = self.comparison.unfinished
        if not runs:
            return ""
        listed = "".join(
            f"<tr><td>{escape(run.status)}</td><td><code>{escape(str(run.folder))}</code></td>"
            f"<td>{escape(run.error or '–')}</td></tr>"
            for run in runs
        )
        said = "1 run that did not finish is" if len(runs) == 1 else f"{len(runs)} runs that did not finish are"
        return (
            f'<details class="unfinished"{" open" if len(runs) <= LISTED else ""}><summary>{said} not in the table</summary>'
            f'<div class="scroll"><table><thead><tr><th>status</th><th>folder</th><th>error</th></tr></thead>'
            f"<tbody>{listed}</tbody></table></div></details>"
        )

    # The tables

    def table(self) -> str:
        """One row a group; the script sorts and filters it."""
        metric = self.metric
        heads = [
            ("label", "group", "text", ""),
            ("n", "n", "number", "number of seeds"),
            ("mean", metric.head, "number", "mean over seeds ± standard deviation"),
            ("interval", "95 % interval", "number", "95 % confidence interval of the mean"),
            ("difference", "difference", "number", "mean difference to the baseline, paired by seed, and its 95 % interval"),
            ("p", "p", "number", "p-value of the difference, corrected for the number of comparisons"),
            ("seconds", "time", "number", "mean time of a run; × how many times the baseline's"),
            ("memory", "memory", "number", "mean peak memory; × how many times the baseline's"),
            *((f"config-{place}", key, "text", f"config value {key}") for place, key in enumerate(self.settings)),
        ]
        head = "".join(
            f'<th scope="col" data-column="{name}" class="{kind}{config(name)}" aria-sort="none"{hidden(name)}>'
            f'<button type="button" title="{escape(f"{note}: sort" if note else "sort")}">{escape(title)}</button></th>'
            for name, title, kind, note in heads
        )
        body = "".join(self.table_row(number, row) for number, row in enumerate(self.rows))
        choices = "".join(
            f'<label><input type="checkbox" data-show="config-{place}"> {escape(key)}</label>'
            for place, key in enumerate(self.settings)
        )
        columns = f'<details class="menu"><summary>Config columns</summary><div>{choices}</div></details>' if choices else ""
        return TABLE.format(columns=columns, head=head, body=body, groups=len(self.rows))

    def table_row(self, number: int, row: Row) -> str:
        """A group's row: each cell has the value by which it is sorted."""
        metric = self.metric
        tag = '<span class="tag">baseline</span>' if row.baseline else ""
        values: list[str] = [written[number] or "" for written in self.settings.values()]
        keys = [f"{key}={value}" for key, value in zip(self.settings, values, strict=True) if value]
        interval = "" if row.interval is None else f"{metric.text(row.interval[0])} – {metric.text(row.interval[1])}"
        difference = ""
        if row.difference is not None:
            difference = f'<span class="value">{metric.signed(row.difference)}</span>'
            if row.difference_interval is not None:
                low, high = row.difference_interval
                difference += f' <span class="range">[{metric.signed(low)}, {metric.signed(high)}]</span>'
        cells: list[tuple[object, str, str]] = [
            (row.n, str(row.n), ""),
            (row.mean, f'<span class="value">{metric.text(row.mean)}</span>{metric.deviation(row.deviation)}', ""),
            (row.interval[0] if row.interval else None, interval, ""),
            (row.difference, difference, ""),
            (row.p_corrected, "" if row.p_corrected is None else probability(row.p_corrected), ""),
            (row.seconds, f"{duration(row.seconds)}{times(row.seconds_ratio)}", ""),
            (row.memory, f"{size(row.memory)}{times(row.memory_ratio)}", ""),
        ]
        cells += [(value, escape(value), " config") for value in values]
        written = "".join(
            f'<td class="{"text" if kind else "number"}{kind}" data-value="{escape(sort_key(value))}"'
            f"{' hidden' if kind else ''}>{text or ABSENT}</td>"
            for value, text, kind in cells
        )
        searched = escape(" ".join([row.label, *keys]).lower())
        return (
            f'<tr data-group="{number}" data-search="{searched}"{" class=baseline" if row.baseline else ""}>'
            f'<td class="select"><input type="checkbox" aria-label="show {escape(row.label)} in the plots"></td>'
            f'<th scope="row" class="text" data-value="{escape(row.label)}"><span class="swatch" data-swatch="{number}"></span>'
            f"<code>{escape(row.label)}</code>{tag}</th>{written}</tr>"
        )

    def differences(self) -> str:
        """One row a config key, one column a group; what is not the baseline's is marked."""
        order = [self.baseline, *(number for number in range(len(self.groups)) if number != self.baseline)]
        head = "".join(
            f'<th scope="col" data-group="{number}"><span class="swatch" data-swatch="{number}"></span>'
            f'<code title="{escape(self.rows[number].label)}">{escape(shorten(self.rows[number].label))}</code></th>'
            for number in order
        )
        body = ""
        for key, written in self.settings.items():
            body += f'<tr><th scope="row"><code>{escape(key)}</code></th>'
            for number in order:
                value = written[number]
                text = ABSENT if value is None else escape(value)
                changed = value != written[self.baseline]
                body += f'<td data-group="{number}"{" class=changed" if changed else ""}>{text}</td>'
            body += "</tr>"
        return DIFFERENCES.format(head=head, body=body)

    def technique(self, found: Mapping[str, Any]) -> str:
        """What a technique recorded: curves, histograms, pictures."""
        name = found["name"]
        key = escape(name)
        used = [number for number, group in enumerate(self.groups) if name in used_techniques(group)]
        count = "1 group" if len(used) == 1 else f"{len(used)} groups"
        parts = [f"<h3>{key}</h3>", f'<p class="hint">In {count}.</p>' if used else ""]
        if found["curves"]:
            names = [(curve, curve.partition("/")[2] or curve) for curve in found["curves"]]
            parts.append(controls(select(f"technique-{key}", "recorded", names) + AXIS.format(name=f"technique-{key}")))
            parts.append(plot(f"technique-{key}"))
        if found["histograms"]:
            names = [(entry, entry.partition("/")[2] or entry) for entry in found["histograms"]]
            numbers = sorted({int(number) for entry in found["histograms"].values() for number in entry})
            groups = [(str(number), self.rows[number].label) for number in numbers]
            parts.append(
                controls(select(f"histogram-{key}", "histogram", names) + select(f"histogram-group-{key}", "group", groups))
            )
            parts.append(plot(f"histogram-{key}"))
        pictures = technique_pictures(name, self.groups)
        if pictures:
            shown = "".join(
                f'<figure data-group="{number}"><img alt="what {key} does to a batch" src="{source}">'
                f'<figcaption><span class="swatch" data-swatch="{number}"></span>'
                f"<code>{escape(shorten(self.rows[number].label))}</code></figcaption></figure>"
                for number, source in pictures.items()
            )
            parts.append(f'<div class="pictures">{shown}</div><p class="hint">{PICTURE}</p>')
        return f'<article class="technique" data-technique="{key}">{"".join(parts)}</article>'


# Texts


class Metric:
    """How a metric is written: accuracies in percent."""

    def __init__(self, name: str, digits: int = 4) -> None:
        self.name = name
        self.larger_is_better = larger_is_better(name)
        percent = (100.0, max(0, digits - 2), " %", " points")
        self.scale, self.decimals, self.unit, self.points = percent if self.larger_is_better else (1.0, digits, "", "")
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
    """A text that plotly must not take for markup."""
    return escape(text, quote=False)


def shorten(text: str, length: int = 44) -> str:
    """A label with its middle left out where it is long."""
    return text if len(text) <= length else f"{text[: length - 16]}…{text[-15:]}"


def duration(seconds: float) -> str:
    """A time as people say it."""
    if math.isnan(seconds):
        return "–"
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def size(memory: float) -> str:
    """Bytes as people say them."""
    if math.isnan(memory):
        return "–"
    return f"{memory / 1e9:.2f} GB" if memory >= 1e9 else f"{memory / 1e6:.0f} MB"


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


# Figures. Each trace says in `meta.group` whose it is; the script gives it the group's colour and leaves out who is not chosen.


def figure(traces: Iterable[Any], **layout: Any) -> dict[str, Any]:
    """A figure as plain data, without plotly's own template."""
    import plotly.graph_objects as go

    made = go.Figure([*traces])
    made.update_layout(template=None, **layout)
    return made.to_plotly_json()


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
    for name in dict.fromkeys(name for group in groups for name in group.options if name != "logger"):
        found[name] = ["+".join(group.options.get(name, ())) or None for group in groups]
    named = all(group.options for group in groups)
    for key in differing:
        if key.startswith("logger.") or (named and key.endswith("_target_")):
            continue  # the option says the same in a word
        found[key] = [show(group.values[key]) if key in group.values else None for group in groups]
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
    label = plain(shorten(name, 26))
    distinct = sorted(set(values), key=category_order)
    numbers = [as_number(value) for value in values]
    known = [value for value in numbers if value is not None]
    if len(set(known)) > CATEGORIES and len(known) == sum(value is not None for value in values):
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
        "ticktext": [NOTHING if value is None else shorten(value, 24) for value in distinct[::every]],
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
            source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
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


# Pieces of the page


def select(name: str, title: str, choices: Sequence[tuple[str, str]], chosen: str | None = None) -> str:
    """A drop-down."""
    options = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in choices
    )
    return f'<label>{title} <select data-control="{name}">{options}</select></label>'


def controls(content: str) -> str:
    """The line above a plot."""
    return f'<div class="controls">{content}</div>'


def plot(name: str) -> str:
    """The place of a plot and of its legend."""
    return f'<div class="legend" data-legend="{name}"></div><div class="plot" data-plot="{name}"></div>'


def curves_section(figures: Mapping[str, Any], metric: str) -> str:
    """Metric and axis to choose, above the curves."""
    wanted = [f"val/{metric.partition('/')[2]}", "val/acc", "val/loss", metric]
    chosen = next((name for name in wanted if name in figures), next(iter(figures)))
    options = ""
    for split in dict.fromkeys(owner(name) if "/" in name else "" for name in figures):
        names = [name for name in figures if (owner(name) if "/" in name else "") == split]
        inner = "".join(
            f'<option value="{escape(name)}"{" selected" if name == chosen else ""}>{escape(name)}</option>' for name in names
        )
        options += f'<optgroup label="{escape(SPLITS.get(split, split or "other"))}">{inner}</optgroup>'
    choice = f'<label>metric <select data-control="curves">{options}</select></label>'
    bands = '<label><input type="checkbox" data-control="curves-band" checked> bands</label>'
    logarithm = '<label><input type="checkbox" data-control="curves-log"> logarithmic</label>'
    return (
        controls(choice + AXIS.format(name="curves") + bands + logarithm)
        + plot("curves")
        + '<p class="hint">Lines: mean over seeds; bands: ± one standard deviation. <span data-shown="curves"></span></p>'
    )


def cost_section(figures: Mapping[str, Any]) -> str:
    """The cost to choose, above the points."""
    names = {"time": "time", "memory": "peak memory", "parameters": "parameters"}
    choice = select("cost", "cost", [(name, names[name]) for name in figures])
    return (
        controls(choice)
        + plot("cost")
        + '<p class="hint">Means over seeds with one standard deviation; dotted: the baseline. <span data-shown="cost"></span></p>'
    )


def forest_section(metric: Metric) -> str:
    """The lines of all groups."""
    return (
        plot("forest") + f'<p class="hint">Pale dots: {escape(metric.name)} of each seed; bold: mean and 95 % interval. '
        'Right: the paired difference to the baseline. <span data-shown="forest">'
        "</span></p>"
    )


def task_choice(name: str, tasks: Iterable[str]) -> str:
    """The task to choose, where there are several."""
    found = [(task, task or "the only one") for task in tasks]
    return f"<span{' hidden' if len(found) == 1 else ''}>{select(name, 'task', found)}</span>"


def classes_section(figures: Mapping[str, Any]) -> str:
    """Task and score to choose, above the heat map."""
    scores = select("classes-score", "score", [(score, score) for score in (RECALL, PRECISION, F1)])
    against = '<label><input type="checkbox" data-control="classes-difference"> difference to the baseline</label>'
    return (
        controls(task_choice("classes-task", figures) + scores + against)
        + plot("classes")
        + '<p class="hint">Test samples of all seeds together. <span data-shown="classes"></span></p>'
    )


def confusion_section(figures: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Task and group to choose, above the matrix."""
    having = sorted({int(place) for entry in figures.values() for place in entry["counts"]})
    groups = select("confusion-group", "group", [(str(place), rows[place].label) for place in having])
    views = [("share", "share of the true class"), ("errors", "errors only"), ("difference", "difference to the baseline")]
    return (
        controls(task_choice("confusion-task", figures) + groups + select("confusion-view", "show", views))
        + plot("confusion")
        + '<p class="hint">Test samples of all seeds together; each row sums to 100 %.</p>'
    )


AXIS = (
    '<label>over <select data-control="{name}-axis"><option value="epoch">epochs</option>'
    '<option value="step">steps</option></select></label>'
)
NAVIGATION = (
    '<nav class="bar" aria-label="Sections"><div class="links">{links}</div>'
    '<button type="button" class="chosen" data-action="clear" hidden></button>'
    '<button type="button" class="theme" data-action="theme" aria-label="switch between light and dark">'
    '<span aria-hidden="true">◐</span></button></nav>'
)
TABLE = (
    '<div class="controls"><label class="filter"><span class="unseen">filter groups</span>'
    '<input type="search" data-action="filter" placeholder="Filter: dropout lr=0.1" autocomplete="off"></label>'
    '<span class="count" data-count aria-live="polite">{groups} groups</span>'
    '{columns}<button type="button" data-action="clear" disabled>Clear selection</button></div>'
    '<div class="scroll tall" tabindex="0" role="region" aria-label="groups"><table class="groups"><thead><tr><th class="select"><input type="checkbox" data-action="all" '
    'aria-label="select all groups in the table"></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    '<p class="hint" data-hint>Select rows to see only these groups in all plots.</p>'
)
PARALLEL = (
    f'<div class="scroll">{plot("parallel")}</div>'
    '<p class="hint">A line a run, coloured by the metric. Drag along an axis to keep only the lines that pass there; drag a name '
    'to move its axis. <span data-shown="parallel"></span></p>'
)
PICTURE = "Samples of a batch: before, after, and the difference, grey where there is none."
DIFFERENCES = (
    '<div class="scroll tall" tabindex="0" role="region" aria-label="config differences"><table class="differences"><thead><tr><th>key</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    '<p class="hint">Marked: not as in the baseline. <span data-shown="differences"></span></p>'
)
