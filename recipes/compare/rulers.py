"""Whether two groups were measured alike: what a metric was measured with is recorded beside it, and must be the same.

Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.compare.groups import Comparison, Group
from recipes.compare.runs import Run
from recipes.config.effect import flatten, in_one_way
from recipes.config.quoting import show
from recipes.store.phase_results import SEEN

SHOWN = 4  # settings, and values of one, in a sentence


def ruler(run: Run, metric: str) -> dict[str, Any]:
    """What a metric of a run was measured with, as dotted keys; empty where nothing is recorded, or nothing has a say."""
    recorded = run.result.get("rulers") or {"loss": run.config.get("loss")}  # older results record none
    place, _, name = metric.rpartition("/")
    found = next((recorded[key] for key in (metric, metric.partition("/")[2], name) if key in recorded), None)
    plain = flatten(in_one_way(found)) if isinstance(found, Mapping) else {}
    return plain | ({"tasks": tasks(run, place)} if name == "loss" else {})


def tasks(run: Run, place: str) -> list[str]:
    """What a loss is one of, as the metrics beside it tell."""
    return sorted(name for name in run.metrics if name.startswith(f"{place}/") and name.endswith(("/loss", "/acc")))


def measured_alike(group: Group, other: Group, metric: str) -> bool:
    """Whether all runs of two groups that have a metric have it by one ruler."""
    runs = [run for run in (*group.runs, *other.runs) if not math.isnan(run.metrics.get(metric, math.nan))]
    return len({json.dumps(ruler(run, metric), sort_keys=True, default=str) for run in runs}) <= 1


class Alike:
    """Refuses a search whose jobs were measured in different ways: it would find the mildest way of measuring.

    Args:
        names: of what it is judged by; none: of each job the metric that chooses its best model.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = names
        self._first: dict[str, Run] = {}  # that has a metric

    def expect(self, result: Mapping[str, Any]) -> None:
        """Look at the result of one more job.

        Raises:
            RecipeError: its scores do not compare with those of the first one.
        """
        for metric in self.names or [str(result.get("monitor"))]:
            if result.get("metrics", {}).get(metric) is None:  # such as steps, which are steps
                continue
            run = Run(Path(), "finished", result)
            first = self._first.setdefault(metric if self.names else "", run)
            if not self.names and metric != first.result["monitor"]:
                raise RecipeError(
                    f"the jobs of this search are judged by {first.result['monitor']} and by {metric}, which do not compare: set "
                    f"trainer.monitor to one that all have"
                )
            if alike := differing(metric, [first, run]):
                raise RecipeError(f"the jobs of this search have {alike}, which do not compare: give all the same")


def differing(metric: str, runs: Sequence[Run]) -> str:
    """In which settings a metric of these runs was measured in different ways; empty where it was not."""
    rulers = [ruler(run, metric) for run in runs]
    keys = [
        key for key in dict.fromkeys(key for one in rulers for key in one) if len({show(one.get(key)) for one in rulers}) > 1
    ]
    settings = []
    for key in keys[:SHOWN]:
        named = [name for name in runs[0].values if name.endswith(f".{key}")]  # as it is typed
        name = min(named, key=lambda name: show(runs[0].values[name]) != show(rulers[0].get(key)), default=key)
        values = list(dict.fromkeys(show(one[key]) if key in one else "none" for one in rulers))
        settings.append(f"{name} {', '.join(values[:SHOWN])}{' and others' * (len(values) > SHOWN)}")
    return metric + " with " + "; ".join(settings) + " and others" * (len(keys) > SHOWN) if settings else ""


def about_rulers(comparison: Comparison) -> Iterator[str]:
    """Sentences where groups are not measured alike, or do not predict alike; losses are told elsewhere."""
    metric = comparison.metric
    if predicted := [key for key in comparison.differing if key.startswith("inference.") and not key.endswith("._target_")]:
        yield (
            f"Groups predict in different ways ({', '.join(predicted[:SHOWN])}): a difference in {metric} comes from how predictions are made "
            f"as well as from training."
        )
    if seen := [group.label for group in comparison.groups if any(ruler(run, metric).get(SEEN) for run in group.runs)]:
        yield (
            f"{' · '.join(seen[:SHOWN])}{' and others' * (len(seen) > SHOWN)}: {metric} is of samples that the last phase has trained on, and "
            f"flatters; take --metric test/{metric.partition('/')[2] if metric.startswith('val/') else 'loss'}"
        )
    apart = not all(measured_alike(group, comparison.baseline, metric) for group in comparison.groups)
    if not apart or metric.rpartition("/")[2] == "loss":
        return
    different = differing(metric, [run for run in comparison.runs if metric in run.metrics])
    yield (
        f"Groups have {different}: it is not measured alike, so no difference is given between those; give all the same, or take "
        f"another --metric."
    )
