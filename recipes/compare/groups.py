"""Runs grouped into those that differ in nothing but seed and fold, each group with a label. Nothing here imports torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugins.directions import larger_is_better
from plugins.errors import RecipeError
from recipes.compare.runs import RESUMED, Replicate, Run, in_one_line
from recipes.config.catalogue import Catalogue
from recipes.config.effect import has_effect
from recipes.config.quoting import show

ROUNDED_OFF = 5  # digits, or more, that a number loses which was meant to be shorter
NO_TECHNIQUE = ("data", "trainer")  # groups of which no option sets a lone run apart

NOTHING_ADDED = "nothing added"


@dataclass
class Group:
    """Finished runs with one config, one for each seed and fold, by these. `label` says in what it differs from the other groups."""

    runs: list[Run]
    label: str = ""

    @property
    def values(self) -> dict[str, Any]:
        """The config that the runs share."""
        return self.runs[0].values

    @property
    def options(self) -> Mapping[str, Sequence[str]]:
        """The options that the runs share."""
        return self.runs[0].options

    @property
    def folds(self) -> list[int]:
        """The folds that its runs are on; none where they are not on several."""
        return several_folds(run.replicate for run in self.runs)

    @property
    def counted(self) -> str:
        """Of what there is a number each, fold or seed."""
        return "fold" if self.folds else "seed"

    def metric(self, name: str) -> dict[Replicate, float]:
        """A metric by seed and fold; not a number where a run does not have it."""
        return {run.replicate: run.metrics.get(name, math.nan) for run in self.runs}

    def mean(self, name: str, left_out: frozenset[Path] = frozenset()) -> float:
        """The mean of a metric over the runs, or the folds, that are not left out; not a number where one of them does not have it."""
        kept = {run.replicate: run.metrics.get(name, math.nan) for run in self.runs if run.folder not in left_out}
        found = independent(kept)
        return sum(found) / len(found) if found else math.nan


@dataclass
class Comparison:
    """Groups of finished runs of one data set beside a baseline.

    Attributes:
        groups: in the order in which their first runs were found.
        baseline: the group that the others are compared with.
        metric: the metric that decides, such as `test/acc`.
        unfinished: runs that failed, were stopped or interrupted, or still run.
        differing: the dotted config keys in which groups differ.
        mode: which value of the metric is best, max or min; None: as the runs know.
        notes: what a reader must know before believing the table, a sentence each.
        data: the name of the data set.
        chosen_by: the metric by which a search has chosen the baseline from its trials; None where it is no search.
        again: the folders of runs in which it has trained that one again, with seeds that nothing was chosen by.
    """

    groups: list[Group]
    baseline: Group
    metric: str
    unfinished: list[Run]
    differing: list[str]
    notes: list[str]
    mode: str | None = None

    @property
    def larger(self) -> bool | None:
        """Whether a larger value of the metric is better, as asked for or as the runs know; None where nobody does.

        Raises:
            RecipeError: the runs contradict each other.
        """
        return self.mode == "max" if self.mode else larger_for(self.metric, self.runs)

    data: str = ""
    chosen_by: str | None = None
    again: frozenset[Path] = frozenset()

    @property
    def runs(self) -> list[Run]:
        """All finished runs."""
        return [run for group in self.groups for run in group.runs]


def several_folds(replicates: Iterable[Replicate]) -> list[int]:
    """The folds of these replicates; none where they are not on several, and only their seeds differ."""
    folds = sorted({fold for _, *some in replicates for fold in some})
    return folds if len(folds) > 1 else []


def independent(values: Mapping[Replicate, float]) -> list[float]:
    """The numbers that are drawn anew: one a seed or, on several folds, the mean over the seeds of each, as seeds bring no new samples."""
    folds = several_folds(values)
    of = [[value for (_, *some), value in values.items() if some == [fold]] for fold in folds]
    return [sum(each) / len(each) for each in of] if folds else [*values.values()]


def larger_for(metric: str, runs: Iterable[Run]) -> bool | None:
    """Whether runs take a larger value of a metric for better; None where nobody knows.

    Raises:
        RecipeError: they contradict each other.
    """
    told = {larger_is_better(metric, run.result.get("directions")) for run in runs} - {None}
    if len(told) > 1:
        raise RecipeError(
            f"some of the runs took a larger {metric} for better, others a smaller one: type --mode max or --mode min"
        )
    return told.pop() if told else None


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Runs with one config together; where a seed, or a fold with a seed, was run more than once, the later run counts."""
    together: dict[str, dict[Replicate, Run]] = {}
    for run in runs:
        key = json.dumps(run.values, sort_keys=True, default=str)
        together.setdefault(key, {})[run.replicate] = run
    return [Group([found[one] for one in sorted(found)]) for found in together.values()]


def label(groups: Sequence[Group], catalogue: Catalogue, sets: Sequence[Sequence[Group]] = ()) -> None:
    """Name each group by what sets it apart, in words that can be typed.

    Args:
        groups: what gets a name.
        catalogue: knows how options are spelled.
        sets: the groups of each data set, where there are several: what sets groups apart on one of them names groups on all,
            what differs between data sets only names none.
    """
    sets = sets or [groups]
    named = [[_own_name(group) for group in each] for each in sets]
    for each, names in zip(sets, named, strict=True):
        for group, name in zip(each, names, strict=True):
            group.label = name
    if not all(all(names) and len(set(names)) == len(names) for names in named):
        _label_by_words(groups, catalogue, sets)
    for group in groups:
        if changed := group.runs[0].resumed:
            group.label = f"{'' if group.label == NOTHING_ADDED else group.label + ' '}{RESUMED}: {changed}"
    for each in sets:
        seen: dict[str, int] = {}
        for group in each:  # configs that differ in what no word says
            seen[group.label] = seen.get(group.label, 0) + 1
            group.label += f" ({seen[group.label]})" if seen[group.label] > 1 else ""


def _own_name(group: Group) -> str:
    names = {in_one_line(run.config.get("name")) for run in group.runs}
    return names.pop() if len(names) == 1 else ""


def _label_by_words(groups: Sequence[Group], catalogue: Catalogue, sets: Sequence[Sequence[Group]]) -> None:
    config_groups = [name for name in dict.fromkeys(name for group in groups for name in group.options) if has_effect(name)]
    varied = [name for name in config_groups if any(len({_chosen(group, name) for group in each}) > 1 for each in sets)]
    differing = [key for key in dict.fromkeys(key for each in sets for key in differing_keys(each)) if key != RESUMED]
    words = []
    for group in groups:
        parts = [_spelled(catalogue, group, name) for name in varied if _chosen(group, name)]
        for key in differing:
            owner = key.split(".")[0]
            like = [
                [other.values[key] for other in each if key in other.values and _chosen(other, owner) == _chosen(group, owner)]
                for each in sets
            ]
            if key in group.values and any(value != values[0] for values in like for value in values[1:]):
                parts.append(f"{key}={show(tidy(group.values[key]))}")
        words.append(parts)
    if not all(words):  # then what all have in common is said: a group with a technique is not one without
        bare = not any(words)
        for group, parts in zip(groups, words, strict=True):
            parts[:0] = [_spelled(catalogue, group, name) for name in config_groups if _is_added(catalogue, group, name, bare)]
    for group, parts in zip(groups, words, strict=True):
        group.label = in_one_line(" ".join(dict.fromkeys(parts))) or NOTHING_ADDED


def _is_added(catalogue: Catalogue, group: Group, name: str, alone: bool) -> bool:
    """Whether a group's option is beyond what every run has; of a run that is alone, beyond the defaults."""
    if name not in catalogue.defaults:
        return bool(_chosen(group, name))
    return alone and name not in NO_TECHNIQUE and _chosen(group, name) not in ((), (catalogue.defaults[name],))


def _chosen(group: Group, name: str) -> tuple[str, ...]:
    return tuple(group.options.get(name, ()))


def _spelled(catalogue: Catalogue, group: Group, name: str) -> str:
    chosen = list(_chosen(group, name))
    return catalogue.spelling(name, chosen[0] if len(chosen) == 1 else show(chosen).replace(" ", ""))


def tidy(value: Any) -> Any:
    """A number without the digits that rounding in a sweep leaves behind: 0.0001 for 0.00010000000000000002."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    rounded = float(f"{value:.12g}")
    return rounded if len(repr(rounded)) + ROUNDED_OFF < len(repr(value)) else value


def differing_keys(groups: Sequence[Group]) -> list[str]:
    """The dotted keys whose values are not the same in all groups."""
    keys = dict.fromkeys(key for group in groups for key in group.values)
    absent = object()
    return [key for key in keys if any(group.values.get(key, absent) != groups[0].values.get(key, absent) for group in groups)]
