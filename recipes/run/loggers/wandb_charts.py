"""What a test has counted, as tables and histograms of Weights & Biases.

Tables are pages of HTML: wandb's own kind of table is an artifact, which costs a run seconds and needs a folder of the user's to be written to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

MOST_CLASSES = 50  # of a confusion matrix: nobody looks at a larger one
SHADE = "0, 114, 178"
STYLE = "<style>table {border-collapse: collapse; font: 13px sans-serif} td, th {padding: 2px 8px; text-align: right}</style>"


def charts_of_test(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tables and charts by name, from what `test.json` and `confusion.json` hold of each task."""
    found: dict[str, Any] = {}
    for task, entry in tasks.items():
        prefix = f"test/{task}/" if task else "test/"
        if "matrix" in entry:
            found |= {f"{prefix}{name}": chart for name, chart in _of_classes(entry).items()}
        if "counts" in entry:
            found[f"{prefix}labels"] = _of_labels(entry)
        if "reliability" in entry:
            found[f"{prefix}reliability"] = _reliability(entry["reliability"])
        for number, column in enumerate(entry.get("columns", ())):
            if "samples" in column:  # no one prediction
                continue
            name = f"{prefix}residuals" + (f"_{number + 1}" if len(entry["columns"]) > 1 else "")
            found[name] = _residuals(column)
        if entry.get("levels"):
            found[f"{prefix}quantiles"] = _quantiles(entry)
    return found


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], shades: Sequence[Sequence[float]] = ()) -> Any:
    """A page with a table; cells of numbers may have a shade in [0, 1]."""
    import wandb

    lines = ["".join(f"<th>{escape(str(column))}</th>" for column in columns)]
    for number, row in enumerate(rows):
        cells = [f"<th>{escape(str(row[0]))}</th>"]
        for place, value in enumerate(row[1:]):
            shade = f' style="background: rgba({SHADE}, {0.8 * shades[number][place]:.2f})"' if shades else ""
            cells.append(f"<td{shade}>{f'{value:.4f}' if isinstance(value, float) else escape(str(value))}</td>")
        lines.append("".join(cells))
    return wandb.Html(f"{STYLE}<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")


def _of_classes(entry: Mapping[str, Any]) -> dict[str, Any]:
    from recipes.compare.summaries import IOU, class_scores

    classes, matrix = entry["classes"], entry["matrix"]
    scores = {name: values for name, values in class_scores(matrix).items() if name != IOU or entry.get("places")}
    rows = [[name, sum(matrix[place]), *(values[place] for values in scores.values())] for place, name in enumerate(classes)]
    found: dict[str, Any] = {"classes": _table(["class", "samples", *scores], rows)}
    if len(classes) <= MOST_CLASSES:
        counts = [[name, *matrix[place]] for place, name in enumerate(classes)]
        shades = [[count / max(1, sum(row)) for count in row] for row in matrix]
        found["confusion"] = _table(["true \\ predicted", *classes], counts, shades)
    return found


def _of_labels(entry: Mapping[str, Any]) -> Any:
    from recipes.compare.tested import label_scores

    scores = label_scores(entry["counts"])
    rows = [
        [name, fn + tp, *(values[place] for values in scores.values())]
        for place, (name, (_, _, fn, tp)) in enumerate(zip(entry["labels"], entry["counts"], strict=True))
    ]
    return _table(["label", "samples", *scores], rows)


def _reliability(bins: Mapping[str, Any]) -> Any:
    filled = [each for each in zip(bins["samples"], bins["right"], bins["sums"], strict=True) if each[0]]
    rows = [[total / samples, right / samples, samples] for samples, right, total in filled]
    return _table(["probability that was predicted", "share that is right", "predictions"], rows)


def _residuals(column: Mapping[str, Any]) -> Any:
    import wandb

    counts = np.array(column["residual_predicted"]).sum(1)[1:-1]
    edges = np.linspace(-column["residual"], column["residual"], len(counts) + 1)
    return wandb.Histogram(np_histogram=(counts, edges))


def _quantiles(entry: Mapping[str, Any]) -> Any:
    rows = []
    for number, column in enumerate(entry["columns"], 1):
        total = column.get("samples") or sum(map(sum, column.get("predicted_true", ()))) or 1
        rows += [[number, level, count / total] for level, count in zip(entry["levels"], column["below"], strict=True)]
    return _table(["number", "quantile", "targets at or below"], rows)
