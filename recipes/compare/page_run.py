"""The page of a single run: its results, its curves, its settings. Nothing here imports torch."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from recipes.compare.groups import Group, tidy
from recipes.compare.plots import curve_names, curves, figure
from recipes.compare.runs import Run
from recipes.compare.table import SIZES, TIMES, in_one_unit
from recipes.compare.units import Metric, plain
from recipes.config.effect import flatten
from recipes.config.errors import printable
from recipes.config.quoting import quote, show
from recipes.store.phase_results import phase_lines, trained_on_validation

SPLITS = ("train", "val", "test")
TRAINING, VALIDATION = 1, 2  # places of the two lines beside that of the run
MOST_SETTINGS = 500


def results(run: Run) -> str:
    """Its metrics, a row each and a column a split, and what it cost."""
    names = dict.fromkeys(name.partition("/")[2] for name in run.metrics if name.partition("/")[0] in SPLITS)
    body = ""
    for name in names:
        cells = ""
        for split in SPLITS:
            metric, value = Metric(f"{split}/{name}"), run.metrics.get(f"{split}/{name}", math.nan)
            cells += f"<td>{metric.text(value)}{metric.unit if math.isfinite(value) else ''}</td>"
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    seen = trained_on_validation(run.result)
    splits = ("metric", "training", "validation, trained on" if seen else "validation", "test")
    head = "".join(f'<th scope="col">{split}</th>' for split in splits)
    which = "after the last step, which was trained on validation samples too" if seen else "that were best in validation"
    facts = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in _facts(run).items())
    return (
        f'<div class="scroll"><table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<dl class="facts">{facts}</dl><p class="hint">Metrics are those of the weights {which}.</p>'
    )


def _facts(run: Run) -> dict[str, str]:
    result = run.result
    seconds, memory = result.get("seconds"), result.get("peak_memory")
    steps, best, parameters = (result.get(name) for name in ("steps", "best_step", "parameters"))
    found = {
        "best step": f"{best:,} of {steps:,}" if isinstance(best, int) and isinstance(steps, int) else "",
        "phases": "; ".join(phase_lines(result)),
        "chosen by": str(result.get("monitor") or ""),
        "time": in_one_unit([float(seconds)], TIMES)[0] if seconds else "",
        "peak memory": in_one_unit([float(memory)], SIZES)[0] if memory else "",
        "parameters": f"{parameters:,}" if isinstance(parameters, int) else "",
        "machine": str(result.get("machine") or ""),
        "changed on the way": run.resumed,
        "command": "train.py " + " ".join(map(quote, result.get("command") or ())),
        "folder": str(run.folder),
    }
    return {name: printable(text) for name, text in found.items() if text}


def curves_of_run(run: Run, points: int) -> dict[str, Any]:
    """The figures of its curves: training and validation of a metric in one, and each curve that stands alone."""
    import plotly.graph_objects as go

    group, names = Group([run]), curve_names([run])
    single = curves([group], names, points)
    found: dict[str, Any] = {}
    for name in names:
        split, _, base = name.partition("/")
        if split not in ("val", "train") or name not in single or base in found:
            continue
        traces = []
        for place, of in ((TRAINING, "train"), (VALIDATION, "val")):
            for trace in single.get(f"{of}/{base}", {}).get("data", ()):
                traces.append(go.Scatter({**trace, "meta": {**trace["meta"], "group": place}}))
        found[base] = figure(traces, yaxis={"title": {"text": plain(Metric(f"val/{base}").head.partition("/")[2])}})
    pairs = {f"{split}/{base}" for base in found for split in ("val", "train")}
    found |= {name: made for name, made in single.items() if name not in pairs}
    best = run.result.get("best_step")
    dashes = dict.fromkeys(run.begins, "solid")
    dashes |= {best: "dot"} if isinstance(best, int) and best > 0 else {}
    for made in found.values() if dashes else ():
        made["layout"]["shapes"] = [
            {"type": "line", "yref": "paper", "x0": step, "x1": step, "y0": 0, "y1": 1, "line": {"dash": dash}}
            for step, dash in dashes.items()
        ]
    return found


def settings_of(run: Run) -> str:
    """All that it was set to: the options by group, then each value; what was typed is marked."""
    typed = {str(word).lstrip("+~").partition("=")[0] for word in run.result.get("command") or ()}
    rows = {group: " + ".join(names) or "–" for group, names in run.options.items()}
    values = {key: value for key, value in flatten(run.config).items() if not key.endswith("_target_")}
    rows |= {key: show(tidy(value)) for key, value in values.items() if key not in rows}
    body = "".join(
        f'<tr><th scope="row"><code>{escape(printable(key))}</code></th>'
        f"<td{' class=changed' if key in typed else ''}>{escape(printable(value))}</td></tr>"
        for key, value in list(rows.items())[:MOST_SETTINGS]
    )
    return (
        '<div class="scroll tall" tabindex="0" role="region" aria-label="settings"><table class="differences plain"><thead><tr>'
        f"<th>key</th><th>value</th></tr></thead><tbody>{body}</tbody></table></div>"
        '<p class="hint">Marked: what was typed.</p>'
    )
