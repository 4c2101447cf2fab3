"""What a test has counted as tables and charts of Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_CLASSES = 50  # of a confusion matrix as a chart: wandb draws 10,000 rows at most


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
            name = f"{prefix}residuals" + (f"_{number + 1}" if len(entry["columns"]) > 1 else "")
            found[name] = _residuals(column)
        if entry.get("levels"):
            found[f"{prefix}quantiles"] = _quantiles(entry)
    return found


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])


def _of_classes(entry: Mapping[str, Any]) -> dict[str, Any]:
    import wandb

    from recipes.compare.summaries import IOU, class_scores

    classes, matrix = entry["classes"], entry["matrix"]
    scores = {name: values for name, values in class_scores(matrix).items() if name != IOU or entry.get("places")}
    rows = [[name, sum(matrix[place]), *(values[place] for values in scores.values())] for place, name in enumerate(classes)]
    found: dict[str, Any] = {"classes": _table(["class", "samples", *scores], rows)}
    if len(classes) <= MOST_CLASSES:
        cells = [
            [true, predicted, matrix[row][column]]
            for row, true in enumerate(classes)
            for column, predicted in enumerate(classes)
        ]
        fields = {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"}
        table = _table(list(fields), cells)
        found["confusion"] = wandb.plot_table(
            "wandb/confusion_matrix/v1", table, fields, {"title": "confusion matrix of the test"}
        )
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
    import wandb

    filled = [each for each in zip(bins["samples"], bins["right"], bins["sums"], strict=True) if each[0]]
    rows = [[total / samples, right / samples, samples] for samples, right, total in filled]
    table = _table(["probability", "right", "predictions"], rows)
    return wandb.plot.line(table, "probability", "right", title="share that is right by the probability that was predicted")


def _residuals(column: Mapping[str, Any]) -> Any:
    import wandb

    counts = np.array(column["residual_predicted"]).sum(1)[1:-1]
    edges = np.linspace(-column["residual"], column["residual"], len(counts) + 1)
    return wandb.Histogram(np_histogram=(counts, edges))


def _quantiles(entry: Mapping[str, Any]) -> Any:
    rows = []
    for number, column in enumerate(entry["columns"], 1):
        total = sum(map(sum, column["predicted_true"])) or 1
        rows += [[number, level, count / total] for level, count in zip(entry["levels"], column["below"], strict=True)]
    return _table(["number", "quantile", "targets at or below"], rows)
