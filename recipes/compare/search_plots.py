"""The course of a search, as a figure of the report. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from recipes.compare.groups import Comparison, larger_for
from recipes.compare.plots import figure
from recipes.compare.runs import Run, natural
from recipes.compare.statistics import Row
from recipes.compare.units import Metric, number, plain


def course(comparison: Comparison, rows: Sequence[Row]) -> dict[str, Any]:
    """Each trial, in the order in which they were begun, by what the search goes by; the best so far; what was given up.

    Args:
        comparison: of a search's trials.
        rows: its groups.
    """
    import plotly.graph_objects as go

    by = str(comparison.chosen_by)
    metric = Metric(by)
    pruned = [run for run in comparison.unfinished if run.status == "pruned" and math.isfinite(run.metrics.get(by, math.nan))]
    trials = [(_begun(row.group.runs), row.group.mean(by, comparison.again), row.label, True) for row in rows]
    trials += [
        (natural(run.folder), run.metrics[by], " ".join(map(str, run.result.get("command", []))), False) for run in pruned
    ]
    placed = list(enumerate(sorted(trials, key=lambda trial: trial[0])))
    traces = []
    for part, kept in (("trial", True), ("pruned", False)):
        some = [(place, value, label) for place, (_, value, label, whole) in placed if whole == kept and math.isfinite(value)]
        if some:
            places, values, labels = zip(*some, strict=True)
            text = [plain(label) for label in labels]
            traces.append(go.Scatter(x=places, y=metric.scaled(values), text=text, mode="markers", meta={"part": part}))
            if kept and (larger := larger_for(by, comparison.runs)) is not None:
                best = accumulate(values, max if larger else min)
                line = [number(metric.scale * value) for value in best]
                traces.insert(0, go.Scatter(x=places, y=line, mode="lines", meta={"part": "best"}))
    return figure(traces, xaxis={"title": {"text": "trial"}}, yaxis={"title": {"text": plain(metric.head)}}) if traces else {}


def _begun(runs: Sequence[Run]) -> list[Any]:
    return min(natural(run.folder) for run in runs)
