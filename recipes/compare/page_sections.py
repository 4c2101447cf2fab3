"""Sections of the report's page, as HTML. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from recipes.compare.plots import SPLITS
from recipes.compare.statistics import Row
from recipes.compare.technique_plots import owner
from recipes.compare.units import Metric


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


def curves_section(figures: Mapping[str, Any], metric: str, alone: bool = False) -> str:
    """Metric and axis to choose, above the curves; `alone`: of one run."""
    wanted = ["loss"] * alone + [f"val/{metric.partition('/')[2]}", "val/acc", "val/loss", metric]
    chosen = next((name for name in wanted if name in figures), next(iter(figures)))
    options, splits = "", {name: owner(name) if "/" in name and not alone else "" for name in figures}
    for split in dict.fromkeys(splits.values()):
        names = [name for name in figures if splits[name] == split]
        inner = "".join(
            f'<option value="{escape(name)}"{" selected" if name == chosen else ""}>{escape(name)}</option>' for name in names
        )
        options += (
            f'<optgroup label="{escape(SPLITS.get(split, split or ("curves" if alone else "other")))}">{inner}</optgroup>'
        )
    choice = f'<label>metric <select data-control="curves">{options}</select></label>'
    bands = '<label><input type="checkbox" data-control="curves-band" checked> bands</label>'
    logarithm = '<label><input type="checkbox" data-control="curves-log"> logarithmic</label>'
    said = "Dotted: the step whose weights are kept." if alone else "Lines: mean over seeds; bands: ± one standard deviation."
    phases = any(trace["meta"]["begins"] for made in figures.values() for trace in made["data"])
    said += f" {'Solid, from top to bottom' if alone else 'Strokes at the bottom'}: a further phase begins." * phases
    return (
        controls(choice + AXIS.format(name="curves") + ("" if alone else bands) + logarithm)
        + plot("curves")
        + f'<p class="hint">{said} Of many steps, neighbours are averaged. <span data-shown="curves"></span></p>'
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


def classes_section(figures: Mapping[str, Any], support: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Task, score and group to choose, a heat map of all groups where there are several, and the table of one."""
    names = dict.fromkeys(score for each in figures.values() for score in each)
    scores = select("classes-score", "score", [(score, score) for score in names])
    against = '<label><input type="checkbox" data-control="classes-difference"> difference to the baseline</label>'
    several = scores + against if len(rows) > 1 else ""
    seeds = "" if all(row.n == 1 for row in rows) else " of all seeds together"
    return (
        controls(task_choice("classes-task", figures) + several)
        + (plot("classes") + f'<p class="hint">Test samples{seeds}. <span data-shown="classes"></span></p>' if several else "")
        + controls(group_choice("classes-group", (place for each in support.values() for place in each["counts"]), rows))
        + '<div class="scroll tall" tabindex="0" role="region" aria-label="results of each class" data-table="classes"></div>'
    )


def group_choice(name: str, places: Iterable[str], rows: Sequence[Row]) -> str:
    """The group to choose, of those that have something to show; hidden where there is one."""
    having = sorted({int(place) for place in places})
    found = select(name, "group", [(str(place), rows[place].label) for place in having])
    return f"<span{' hidden' if len(rows) == 1 else ''}>{found}</span>"


def reliability_section(figures: Mapping[str, Any]) -> str:
    """How often predictions are right, by their probability."""
    return (
        controls(task_choice("reliability-task", figures))
        + plot("reliability")
        + '<p class="hint">Test predictions in bins of their probability, larger marks for more of them; on the dotted line it is as often right as it says. '
        'The calibration error is the mean distance to the line. <span data-shown="reliability"></span></p>'
    )


def numbers_section(figures: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Task, number and group to choose, above predictions, residuals and quantiles."""
    has_tables = any(entry["tables"] for entry in figures.values())
    longest = max((entry["columns"] for entry in figures.values()), key=len)
    columns = select("numbers-column", "number", [(str(place), name) for place, name in enumerate(longest)])
    groups = group_choice("numbers-group", (place for entry in figures.values() for place in entry["tables"]), rows)
    quantiles = plot("coverage") if any(entry["levels"] for entry in figures.values()) else ""
    tables = (
        f'<div class="pair"><div>{plot("against")}</div><div>{plot("residuals")}</div></div>'
        '<p class="hint">Test samples in cells, darker for more; the outermost cells hold all that lies beyond. Dotted: a prediction that is right.</p>'
    )
    return (
        controls(
            task_choice("numbers-task", figures)
            + f"<span{' hidden' if len(longest) == 1 else ''}>{columns}</span>"
            + (groups if has_tables else "")
        )
        + (tables if has_tables else "")
        + (
            quantiles
            and f'{quantiles}<p class="hint">The share of the targets at or below each predicted quantile; on the dotted line it is as it should be.</p>'
        )
    )


def confusion_section(figures: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Task and group to choose, above the matrix."""
    groups = group_choice("confusion-group", (place for entry in figures.values() for place in entry["counts"]), rows)
    views = [("share", "share of the true class"), ("errors", "errors only")]
    views += [("difference", "difference to the baseline")] * (len(rows) > 1)
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
SEARCH = (
    f'{plot("search")}<p class="hint">Trials in the order in which they were begun, by what the search goes by; crosses were given up, '
    "at the best that they had reached. The line is the best so far.</p>"
)
PICTURE = "Samples of a batch: before, after, and the difference, grey where there is none."
SEEN = "Drawn at the end of a run, of the first seed that has a picture."
DIFFERENCES = (
    '<div class="scroll tall" tabindex="0" role="region" aria-label="config differences"><table class="differences"><thead><tr><th>key</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    '<p class="hint">Marked: not as in the baseline. <span data-shown="differences"></span></p>'
)
