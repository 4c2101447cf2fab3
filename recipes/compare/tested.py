"""What tests have counted, summed over the seeds of each group, as plain data for the report. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipes.compare.groups import Group
from recipes.compare.summaries import F1, PRECISION, RECALL
from recipes.compare.units import number, plain

MOST_COUNTS = 300_000  # in the tables of all groups together, so that a page of many groups stays small
Tested = dict[str, dict[int, dict[str, Any]]]  # by task, then by the group's place


def with_room(places: Sequence[int], size: int, baseline: int, most: int = MOST_COUNTS) -> list[int]:
    """The groups whose tables of so many numbers fit on the page: the baseline's and, from the best on, as many as there is room for."""
    order = sorted(places, key=lambda place: (place != baseline, place))
    return sorted(order[: max(2, most // max(1, size))])


def summed_tested(groups: Sequence[Group]) -> Tested:
    """For each task and group what its runs have counted, summed over seeds; what fits no other run of the task is left out, and `of` how many there are."""
    kinds: dict[str, tuple[Any, ...]] = {}
    found: Tested = {}
    for place, group in enumerate(groups):
        for task in dict.fromkeys(task for run in group.runs for task in run.tested):
            every = [run.tested[task] for run in group.runs if task in run.tested]
            entries = [entry for entry in every if _likeness(entry) == kinds.setdefault(task, _likeness(entry))]
            if entries:
                found.setdefault(task, {})[place] = SUMS[entries[0]["kind"]](entries) | {"of": len(every)}
    return found


def _likeness(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be the same in all that are laid side by side."""
    columns = [(*column["range"], len(column.get("predicted_true", ()))) for column in entry.get("columns", ())]
    bins = len(entry["reliability"]["samples"]) if "reliability" in entry else 0
    return entry["kind"], tuple(entry.get("labels", ())), tuple(entry.get("levels", ())), tuple(columns), bins


def _added(lists: Sequence[Any]) -> Any:
    """Numbers in lists of lists of one shape, added up."""
    if not isinstance(lists[0], list):
        return sum(lists)
    return [_added(each) for each in zip(*lists, strict=True)]


def _reliability(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = [entry["reliability"] for entry in entries if "reliability" in entry]
    return (
        {"reliability": {name: _added([each[name] for each in known]) for name in ("samples", "right", "sums")}}
        if known
        else {}
    )


def _classes(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"kind": "classification", "places": entries[0]["places"], **_reliability(entries)}


def _labels(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = _added([entry["counts"] for entry in entries])
    return {"kind": "multilabel", "labels": entries[0]["labels"], "counts": counts, **_reliability(entries)}


def _numbers(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns: list[dict[str, Any]] = []
    for each in zip(*(entry["columns"] for entry in entries), strict=True):
        below = _added([column["below"] for column in each])
        if "samples" in each[0]:  # several quantiles without the median
            columns.append({"range": each[0]["range"], "samples": sum(column["samples"] for column in each), "below": below})
            continue
        width = max(column["residual"] for column in each)
        alike = [column["residual_predicted"] for column in each if column["residual"] == width]
        columns.append(
            {
                "range": each[0]["range"],
                "residual": width,
                "predicted_true": _added([column["predicted_true"] for column in each]),
                "residual_predicted": _added(alike),
                "below": below,
                "runs": [len(each), len(alike)],
            }
        )
    return {"kind": "regression", "levels": entries[0]["levels"], "columns": columns}


SUMS = {"classification": _classes, "multilabel": _labels, "regression": _numbers}


def label_scores(counts: Sequence[Sequence[int]]) -> dict[str, list[float | None]]:
    """Recall, precision and F1 of each label, of its true and false negatives and positives; None where it is neither there nor predicted."""

    def share(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    return {
        RECALL: [share(tp, tp + fn) for _, _, fn, tp in counts],
        PRECISION: [share(tp, tp + fp) for _, fp, _, tp in counts],
        F1: [share(2 * tp, 2 * tp + fp + fn) for _, fp, fn, tp in counts],
    }


def reliabilities(tested: Tested) -> dict[str, Any]:
    """For each task and group the bins that hold a prediction: mean probability, share that is right, number; and the calibration error.

    ECE = Σ_b |right_b − Σ p| / n over bins b, in percent.
    """
    found: dict[str, Any] = {}
    for task, entries in tested.items():
        for place, entry in entries.items():
            if not (bins := entry.get("reliability")) or not sum(bins["samples"]):
                continue
            kept = [each for each in zip(bins["samples"], bins["right"], bins["sums"], strict=True) if each[0]]
            error = sum(abs(right - total) for _, right, total in kept) / sum(bins["samples"])
            found.setdefault(task, {})[str(place)] = {
                "x": [number(100 * total / samples) for samples, _, total in kept],
                "y": [number(100 * right / samples) for samples, right, _ in kept],
                "n": [samples for samples, *_ in kept],
                "error": number(100 * error),
            }
    return found


def numbers(tested: Tested, baseline: int) -> dict[str, Any]:
    """For each regression its columns, and each group's tables of predictions and residuals, for the groups that there is room for."""
    found: dict[str, Any] = {}
    for task, entries in tested.items():
        first = next(iter(entries.values()))
        if first["kind"] != "regression":
            continue
        has_tables = "predicted_true" in first["columns"][0]
        sizes = [2 * len(column["predicted_true"]) ** 2 for column in first["columns"] if has_tables]
        kept = with_room([*entries], sum(sizes), baseline) if has_tables else []
        below = {
            str(place): [
                [number(100 * count / (_total(column) or 1)) for count in column["below"]] for column in entry["columns"]
            ]
            for place, entry in entries.items()
        }
        found[task] = {
            "levels": [100 * level for level in first["levels"]],
            "columns": [plain(f"number {place + 1}") for place in range(len(first["columns"]))],
            "below": below,
            "tables": {
                str(place): [_for_script(column) | {"of": entries[place]["of"]} for column in entries[place]["columns"]]
                for place in kept
            },
        }
    return found


def _total(column: Mapping[str, Any]) -> int:
    return column["samples"] if "samples" in column else sum(map(sum, column["predicted_true"]))


def _for_script(column: Mapping[str, Any]) -> dict[str, Any]:
    return {**column, "range": [*map(number, column["range"])], "residual": number(column["residual"]), "n": _total(column)}
