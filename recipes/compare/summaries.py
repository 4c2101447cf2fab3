"""Pure numbers of a comparison: averaged curves, summed confusion matrices, scores of classes. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from recipes.compare.groups import Group

PRECISION, RECALL, F1, IOU = "precision", "recall", "F1", "IoU"


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


def class_scores(counts: Sequence[Sequence[int]]) -> dict[str, list[float | None]]:
    """Recall, precision, F1 and intersection over union of each class; None where a class neither occurs nor is predicted."""
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
        IOU: [share(right[place], true[place] + predicted[place] - right[place]) for place in classes],
    }
