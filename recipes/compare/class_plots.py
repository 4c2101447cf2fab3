"""What a comparison shows of single classes and labels: confusion matrices and scores. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recipes.compare.notes import shorten
from recipes.compare.plots import figure
from recipes.compare.summaries import F1, IOU, PRECISION, RECALL, class_scores
from recipes.compare.tested import Tested, label_scores, with_room
from recipes.compare.units import number, plain

LONGEST = 24  # letters of a class
MOST_COUNTS = 1_000_000  # in the confusion matrices of all groups together
Summed = Mapping[str, Mapping[str, Any]]  # confusion matrices, as of summed_confusion


@dataclass
class Scored:
    """The classes or labels of a task, by the places of the groups their scores and how many samples have them."""

    classes: list[str]
    named: str = "class"
    names: tuple[str, ...] = (RECALL, PRECISION, F1)
    scores: dict[int, dict[str, list[float | None]]] = field(default_factory=dict)
    counts: dict[int, list[int]] = field(default_factory=dict)


def scored(confusion: Summed, tested: Tested, baseline: int) -> dict[str, Scored]:
    """For each task of classes or labels what is known of each of them, for the groups that there is room for."""
    found: dict[str, Scored] = {}
    for task, entry in confusion.items():
        maps = any(each.get("places") for each in tested.get(task, {}).values())
        of = found[task] = Scored([*entry["classes"]], names=(RECALL, PRECISION, F1, *[IOU] * maps))
        for place, counts in entry["counts"].items():
            of.scores[place], of.counts[place] = class_scores(counts), [sum(row) for row in counts]
    for task, entries in tested.items():
        for place, each in entries.items():
            if each["kind"] == "multilabel" and (task not in found or found[task].named == "label"):
                of = found.setdefault(task, Scored([*each["labels"]], "label"))
                of.scores[place] = label_scores(each["counts"])
                of.counts[place] = [fn + tp for _, _, fn, tp in each["counts"]]
    for of in found.values():
        kept = with_room([*of.scores], (len(of.names) + 1) * len(of.classes), baseline)
        of.scores, of.counts = ({place: known[place] for place in kept} for known in (of.scores, of.counts))  # type: ignore[assignment]
    return found


def confusion_matrices(confusion: Summed, baseline: int) -> dict[str, Any]:
    """For each task its classes and each group's counts, of those that there is room for, for the script, which draws one at a time."""
    found = {}
    for task, entry in confusion.items():
        kept = with_room([*entry["counts"]], len(entry["classes"]) ** 2, baseline, MOST_COUNTS)
        counts = {str(place): entry["counts"][place] for place in kept}
        found[task] = {"classes": [plain(shorten(name, LONGEST)) for name in entry["classes"]], "counts": counts}
    return found


def class_results(found: Mapping[str, Scored]) -> dict[str, Any]:
    """For each task a figure for each score: a row a group, a column a class or label, in percent."""
    import plotly.graph_objects as go

    figures: dict[str, Any] = {}
    for task, of in found.items():
        ticks = [plain(shorten(name, LONGEST)) for name in of.classes]
        for score in of.names:
            trace = go.Heatmap(
                x=list(range(len(ticks))),
                y=[str(place) for place in of.scores],
                z=[[number(None if value is None else 100 * value) for value in each[score]] for each in of.scores.values()],
                meta={"rows": [*of.scores]},
            )
            layout = {"tickvals": list(range(len(ticks))), "ticktext": ticks}
            figures.setdefault(task, {})[score] = figure([trace], xaxis=layout)
    return figures


def support(found: Mapping[str, Scored]) -> dict[str, Any]:
    """For each task its classes or labels, and how many samples of each group's tests have them."""
    return {
        task: {
            "named": of.named,
            "classes": [shorten(name, 2 * LONGEST) for name in of.classes],
            "counts": {str(place): counts for place, counts in of.counts.items()},
        }
        for task, of in found.items()
    }
