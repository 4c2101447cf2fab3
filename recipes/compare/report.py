"""The report of a comparison: one HTML file that needs nothing beside it, with a table and interactive plots.

Python writes the table and the figures, `report_*.js` show the figures of the groups that are chosen in the table.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from recipes.compare.class_plots import class_results, confusion_matrices, scored, support
from recipes.compare.groups import Comparison
from recipes.compare.notes import shorten
from recipes.compare.page_run import curves_of_run, results, settings_of
from recipes.compare.page_sections import (
    NAVIGATION,
    PARALLEL,
    SEARCH,
    classes_section,
    confusion_section,
    cost_section,
    curves_section,
    forest_section,
    numbers_section,
    reliability_section,
)
from recipes.compare.page_tables import LABEL, differences, table
from recipes.compare.page_techniques import technique
from recipes.compare.page_texts import probability, ranges
from recipes.compare.plots import (
    cost,
    curve_names,
    curves,
    forest,
    parallel,
    points_of_curves,
    settings,
)
from recipes.compare.rulers import measured_alike
from recipes.compare.search_plots import course
from recipes.compare.standing import Standing, section
from recipes.compare.statistics import ROUNDING, Row
from recipes.compare.summaries import summed_confusion
from recipes.compare.table import arrange, decimals
from recipes.compare.technique_plots import techniques
from recipes.compare.tested import numbers, reliabilities, summed_tested
from recipes.compare.units import Metric, plain
from recipes.config.errors import printable
from recipes.store.files import write_text

# The first is the baseline's. Found by a search: to eyes that see all colours, no red, no green or no blue, two of them differ
# by 20 units of CIELAB or more, and each has a contrast of 3 or more to its background.
COLOURS = {
    "light": ["#222325", "#5f7bff", "#c5701d", "#1aa78b", "#84247c", "#725231", "#3419a9"],
    "dark": ["#edf6ff", "#9bb3fb", "#aa6d18", "#4bff96", "#d8477d", "#ffdd2d", "#9b53ff"],
}
MARKS = ("x", "circle", "square", "triangle-up", "diamond", "triangle-down", "cross")  # of the same groups
DASHES = ("solid", "dash", "dot", "dashdot")  # where there are more groups than colours
LISTED = 3  # runs that did not finish which are listed without a click
# what the page may do: run its own scripts (WebGL needs compiled ones) and show its own pictures; it can reach no network
SCRIPTS = ("groups", "plots", "grids", "tested", "table")  # files report_NAME.js, in this order
# the ranked, the labels of the others, the data sets, those that have no ranks
Ranks = tuple[Sequence[Standing], Sequence[str], Sequence[str], Sequence[str]]
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"


def write_report(comparison: Comparison, rows: Sequence[Row], path: Path, ranks: Ranks | None = None) -> None:
    """Write the report of a comparison whose groups have these rows, the best group first; `ranks`: over all data sets."""
    page = Page(comparison, rows, ranks)
    folder = Path(__file__).parent
    parts = {
        "policy": POLICY,
        "title": escape(page.title),
        "style": (folder / "report.css").read_text(encoding="utf-8"),
        "body": page.body(),
        "data": embedded(page.data()),
        "plotly": get_plotlyjs(),
        "script": "\n".join((folder / f"report_{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
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

    def __init__(self, comparison: Comparison, rows: Sequence[Row], ranks: Ranks | None = None) -> None:
        self.ranks = ranks
        self.comparison, self.metric = comparison, Metric(comparison.metric, decimals(rows))
        self.rows = arrange(rows, bool(comparison.larger))
        self.groups = [row.group for row in self.rows]
        self.settings = settings(self.groups, comparison.differing)
        self.baseline = next((number for number, row in enumerate(self.rows) if row.baseline), 0)
        self.run = comparison.runs[0] if len(comparison.runs) == 1 else None  # the only one
        points = points_of_curves(self.groups)
        confusion, tested = summed_confusion(self.groups), summed_tested(self.groups)
        classes = scored(confusion, tested, self.baseline)
        # the figures in one place, by section: a section is on the page where it has something to show
        self.figures: dict[str, Any] = {
            "curves": curves_of_run(self.run, points)
            if self.run
            else curves(self.groups, curve_names(comparison.runs), points),
            "cost": cost(self.rows, self.metric, self.baseline),
            "forest": forest(self.rows, self.metric, self.baseline),
            "parallel": parallel(self.groups, self.settings, self.metric),
            "search": course(comparison, self.rows) if comparison.chosen_by else {},
            "classes": class_results(classes),
            "support": support(classes),
            "confusion": confusion_matrices(confusion, self.baseline),
            "reliability": reliabilities(tested),
            "numbers": numbers(tested, self.baseline),
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
        labels = [row.label for row in self.rows] + ["training", "validation"] * bool(self.run)
        others += range(len(self.rows), len(labels))
        for number, label in enumerate(labels):
            turn, hue = (0, -1) if number == self.baseline else divmod(others.index(number), len(MARKS) - 1)
            look = {"colour": hue + 1, "mark": MARKS[hue + 1], "dash": DASHES[turn % len(DASHES)]}
            groups.append({"label": label, "short": plain(shorten(label, LABEL)), **look})
        return {
            "colours": COLOURS,
            "groups": groups,
            "baseline": self.baseline,
            "larger": bool(self.comparison.larger),
            "figures": self.figures,
        }

    def body(self) -> str:
        """The page without its scripts."""
        figures = self.figures
        sections = []
        if self.run:
            sections.append(("results", "Results", results(self.run)))
        else:
            sections.append(("table", "Table", table(self.rows, self.settings, self.metric)))
        if self.ranks:
            sections.append(("ranks", "All data", section(*self.ranks)))
        if figures["curves"]:
            sections.append(("curves", "Curves", curves_section(figures["curves"], self.comparison.metric, bool(self.run))))
        if self.run:
            sections.append(("settings", "Settings", settings_of(self.run)))
        else:
            sections.append(("seeds", "Seeds and intervals", forest_section(self.metric)))
            if figures["cost"]:
                sections.append(("cost", "Cost", cost_section(figures["cost"])))
        if figures["search"]:
            sections.append(("search", "Search", SEARCH))
        if figures["parallel"]:
            sections.append(("parallel", "Hyperparameters", PARALLEL))
        if self.settings:
            sections.append(("differences", "Config differences", differences(self.rows, self.settings)))
        if figures["classes"]:
            sections.append(("classes", "Classes", classes_section(figures["classes"], figures["support"], self.rows)))
        if figures["confusion"]:
            sections.append(("confusion", "Confusion", confusion_section(figures["confusion"], self.rows)))
        if figures["reliability"]:
            sections.append(("reliability", "Reliability", reliability_section(figures["reliability"])))
        if figures["numbers"]:
            sections.append(("numbers", "Predictions", numbers_section(figures["numbers"], self.rows)))
        if figures["techniques"]:
            shown = "".join(technique(found, self.groups, self.rows) for found in figures["techniques"])
            sections.append(("techniques", "Techniques", shown))
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
            **({} if self.run else {"baseline": self.rows[self.baseline].label}),
            "data set": self.comparison.data,
            **({} if self.run else {"groups": str(len(self.groups)), "finished runs": str(len(runs))}),
            ("seed" if len(seeds) == 1 else f"{len(seeds)} seeds"): ranges(seeds),
            "written": f"{datetime.now():%Y-%m-%d %H:%M}",
        }
        listed = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
        notes = "".join(f'<li class="note">{escape(note)}</li>' for note in self.comparison.notes)
        notes = f'<ul class="notes" aria-label="What to know before believing the table">{notes}</ul>' if notes else ""
        return (
            f'<header class="top"><p class="eyebrow">{"A run" if self.run else "Comparison of training techniques"}</p>'
            f"<h1>{escape(self.title)}</h1>"
            f'<p class="lead">{self.summary()}</p><dl class="facts">{listed}</dl>{notes}{self.unfinished()}</header>'
        )

    def summary(self) -> str:
        """The result in a sentence or two."""
        best, base, metric = self.rows[0], self.rows[self.baseline], self.metric
        title = escape(metric.title)
        if abs(best.mean - base.mean) <= ROUNDING * abs(base.mean):
            best = base
        label = f"<b>{escape(best.label)}</b>"
        number = f"{metric.text(best.mean)}{metric.deviation(best.deviation)}{metric.unit}".replace(" %", "\u00a0%")
        if math.isnan(best.mean):
            return f"No group has a mean {title}."
        if len(self.rows) == 1:
            return f"{label}: {title} {number}."
        baseline = f"the baseline <b>{escape(base.label)}</b>"
        if not all(measured_alike(row.group, base.group, self.comparison.metric) for row in self.rows):
            return f"{title} was measured in different ways, so that there is no best group; the notes tell more."
        if self.comparison.chosen_by:
            return self.found(base)
        if best is base:
            return f"No group is better than {baseline} in its mean {title}, {number}."
        sentence = f"{label} has the best mean {title}: {number}"
        if best.pairs == 0:
            return f"{sentence}. It shares no seed with {baseline}."
        if best.difference is None:
            return f"{sentence}. There is no difference to give: {baseline} has no number for every seed."
        over = " over the seeds that both have" if best.pairs < max(best.n, base.n) else ""
        sentence += f", {metric.signed(best.difference)}{metric.points} against {baseline}{over}"
        if best.pairs == 1:
            return f"{sentence}. There are too few seeds to tell this from chance."
        if best.p_corrected is None:
            return (
                f"{sentence}, the same for every {best.group.counted}; a test would call that certain, so no p-value is given."
            )
        said = "which is more than chance explains" if best.significant else "which chance may explain"
        return f"{sentence}, {said} (corrected p {probability(best.p_corrected, '= ')})."

    def found(self, chosen: Row) -> str:
        """What a search has found: what it chose by validation, and how that did in the test."""
        by = str(self.comparison.chosen_by)
        measured = any(by in run.metrics for run in chosen.group.runs)  # else the search has looked at time, or at several
        names = dict.fromkeys((by, by.replace("val/", "test/", 1)) if measured else (self.comparison.metric,))
        again = frozenset(run.folder for run in chosen.group.runs if run.folder in self.comparison.again)
        others = frozenset(run.folder for run in chosen.group.runs) - again

        def told(left_out: frozenset[Path]) -> str:
            means = {name: chosen.group.mean(name, left_out) for name in names}
            return " and ".join(
                f"{escape((metric := Metric(name)).title)} {metric.text(mean)}{metric.unit}".replace(" %", "\u00a0%")
                for name, mean in means.items()
                if math.isfinite(mean)
            )

        label = f"<b>{escape(chosen.label)}</b>"
        sentence = f"The search chose {label} of {len(self.rows)} trials by {escape(by)}: {told(again)}."
        if again:
            seeds = "a fresh seed" if len(again) == 1 else f"{len(again)} fresh seeds"
            sentence += f" Trained again with {seeds}, by which nothing was chosen: {told(others)}."
        return sentence

    def unfinished(self) -> str:
        """The runs that are not in the table, and why."""
        runs = self.comparison.unfinished
        if not runs:
            return ""
        listed = "".join(
            f"<tr><td>{escape(run.status)}</td><td><code>{escape(printable(str(run.folder)))}</code></td>"
            f"<td>{escape(printable(run.error) or '–')}</td></tr>"
            for run in runs
        )
        said = "1 run that did not finish is" if len(runs) == 1 else f"{len(runs)} runs that did not finish are"
        return (
            f'<details class="unfinished"{" open" if len(runs) <= LISTED else ""}><summary>{said} not in the table</summary>'
            f'<div class="scroll"><table><thead><tr><th>status</th><th>folder</th><th>error</th></tr></thead>'
            f"<tbody>{listed}</tbody></table></div></details>"
        )
