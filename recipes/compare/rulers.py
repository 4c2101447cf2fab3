"""Whether two groups were measured alike: what a metric was measured with is recorded beside it, and must be the same.

Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from recipes.catalogue import show
from recipes.compare.runs import Comparison, Group, Run, flatten

SHOWN = 4  # settings, and values of one, in a sentence


def ruler(run: Run, metric: str) -> dict[str, Any]:
    """What a metric of a run was measured with, as dotted keys; empty where nothing is recorded, or nothing has a say."""
    recorded = run.result.get("rulers") or {"loss": run.config.get("loss")}  # older results record none
    place, _, name = metric.rpartition("/")
    found = recorded.get(name)
    plain = flatten(found) if isinstance(found, Mapping) else {}
    return plain | ({"tasks": tasks(run, place)} if name == "loss" else {})


def tasks(run: Run, place: str) -> list[str]:
    """What a loss is one of, as the metrics beside it tell."""
    return sorted(name for name in run.metrics if name.startswith(f"{place}/") and name.endswith(("/loss", "/acc")))


def measured_alike(group: Group, other: Group, metric: str) -> bool:
    """Whether all runs of two groups that have a metric have it by one ruler."""
    runs = [run for run in (*group.runs, *other.runs) if metric in run.metrics]
    return len({json.dumps(ruler(run, metric), sort_keys=True, default=str) for run in runs}) <= 1


def about_rulers(comparison: Comparison) -> Iterator[str]:
    """A sentence where groups are not measured alike: in which settings, and how they would be; losses are told elsewhere."""
    metric = comparison.metric
    apart = not all(measured_alike(group, comparison.baseline, metric) for group in comparison.groups)
    if not apart or metric.rpartition("/")[2] == "loss":
        return
    runs = [run for run in comparison.runs if metric in run.metrics]
    rulers = [ruler(run, metric) for run in runs]
    keys = [
        key for key in dict.fromkeys(key for one in rulers for key in one) if len({show(one.get(key)) for one in rulers}) > 1
    ]
    settings = []
    for key in keys[:SHOWN]:
        values = list(dict.fromkeys(show(one[key]) if key in one else "none" for one in rulers))
        settings.append(f"{key} {', '.join(values[:SHOWN])}{' and others' * (len(values) > SHOWN)}")
    typed = [name for key in keys for name in runs[0].values if name.endswith(f".{key}")]
    fix = f", with one {typed[0]} for all," if typed else ""
    yield (
        f"{metric} was measured in different ways ({'; '.join(settings)}{' and others' * (len(keys) > SHOWN)}), so no difference is "
        f"given between groups that were: measure all of them alike{fix} or take another --metric."
    )
