"""From runs to a comparison: which metric decides, which group is the baseline, and what a careful reader must be told.

Nothing here imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.compare.baseline import baselines, chosen_by_search
from recipes.compare.datasets import by_data, keys
from recipes.compare.datasets import names as data_names
from recipes.compare.groups import Comparison, Group, differing_keys, group_runs, label, larger_for
from recipes.compare.notes import notes, statuses
from recipes.compare.runs import Run
from recipes.compare.search import chosen as chosen_of
from recipes.compare.search import is_search, repeats
from recipes.config.catalogue import Catalogue
from recipes.config.errors import printable
from recipes.config.quoting import quote
from recipes.config.spelling import suggest

ENDED = ("finished", "diverged")  # what is in the table


def compare(runs: Iterable[Run], catalogue: Catalogue, *choices: Any, **asked: Any) -> Comparison:
    """The comparison of runs of one data set; arguments as of :func:`compare_all`."""
    (found,) = compare_all(runs, catalogue, *choices, **asked)
    return found


def compare_all(
    runs: Iterable[Run],
    catalogue: Catalogue,
    metric: str | None = None,
    baseline: str | None = None,
    names: Mapping[Path, str] | None = None,
    mode: str | None = None,
) -> list[Comparison]:
    """Group runs that differ in nothing but the seed and set them beside a baseline, those of each data set by themselves.

    Args:
        runs: in the order in which they were found.
        catalogue: knows the options, for labels and for what counts as added.
        metric: decides; by default the test metric that belongs to the one by which the runs chose their best model.
        baseline: the label of a group or a folder of its runs; by default the group with the fewest added techniques.
        names: labels to use, by resolved run folder; where several groups have one, each has its own label behind it.
        mode: which value of the metric is best, max or min; by default as the runs know.

    Raises:
        RecipeError: nothing to compare; no such metric, or one of which nobody knows whether larger is better.
    """
    runs = list(runs)
    finished = [run for run in runs if run.status in ENDED]
    unfinished = [run for run in runs if run.status not in ENDED]
    if not any(run.status == "finished" for run in finished):
        unfinished = [*finished, *unfinished]
        first = unfinished[0]
        raise RecipeError(
            f"none of {len(runs)} runs is finished ({statuses(unfinished)}); "
            f"{first.folder}{': ' if first.error else ''}{first.error}"
        )
    data = by_data(finished)
    missing = _by_place(unfinished, runs, data)
    sets = [group_runs(some) for some in data]
    label([group for groups in sets for group in groups], catalogue, sets)
    for groups in sets:
        _rename(groups, catalogue, names or {})
    metrics = list(dict.fromkeys(name for run in finished for name in run.metrics))
    searches = [is_search([run for group in groups for run in group.runs]) for groups in sets]
    found = baselines(sets, catalogue, baseline)
    comparisons = []
    for place, (groups, some, name) in enumerate(zip(sets, data, data_names(data), strict=True)):
        told = chosen_of(groups) if searches[place] else None
        by = told[1] if told else (_monitors(some).most_common(1)[0][0] if searches[place] else None)
        chosen_metric, about_metric = _metric(some, metric, metrics, by)
        chosen, about_baseline = found[place]
        again, chosen_by = frozenset[Path](), None
        if by is not None and len(groups) > 1:  # a search that had a choice
            again = repeats(some)
            if baseline:
                about_baseline = []
            else:
                chosen_by = by
                chosen, about_baseline = chosen_by_search(groups, by, again, told and told[0])
        comparison = Comparison(
            groups, chosen, chosen_metric, missing[place], differing_keys(groups), [], mode, name, chosen_by, again
        )
        if comparison.larger is None:
            raise RecipeError(
                f"whether a larger or a smaller {chosen_metric} is better is not known: type --mode max or --mode min"
            )
        comparison.notes += [*map(printable, [*about_baseline, *about_metric, *notes(comparison, some)])]
        comparisons.append(comparison)
    return comparisons


def _by_place(unfinished: Sequence[Run], runs: Sequence[Run], data: Sequence[Sequence[Run]]) -> list[list[Run]]:
    """The runs that are not finished, beside the finished ones of their data; of what nobody knows the data, beside the first."""
    of = keys(runs)
    places = {of[id(some[0])]: place for place, some in enumerate(data)}
    found: list[list[Run]] = [[] for _ in data]
    for run in unfinished:
        found[places.get(of[id(run)], 0)].append(run)
    return found


def _rename(groups: Sequence[Group], catalogue: Catalogue, names: Mapping[Path, str]) -> None:
    """Give groups the names that were typed; a name of several groups stands before what sets these apart."""
    named: dict[str, list[Group]] = {}
    for group in groups:
        found = list(dict.fromkeys(names[run.folder.resolve()] for run in group.runs if run.folder.resolve() in names))
        if len(found) > 1:
            raise RecipeError(
                f"{' and '.join(map(quote, found))}: these runs differ in nothing but the seed; give them one name"
            )
        if found:
            named.setdefault(found[0], []).append(group)
    for name, some in named.items():
        if len(some) > 1:
            label(some, catalogue)
        for group in some:
            group.label = f"{name}: {group.label}" if len(some) > 1 else name
    counts = Counter(group.label for group in groups)
    for name, some in named.items():
        for group in some:
            if counts[group.label] > 1:
                raise RecipeError(
                    f"{name}=FOLDER: {counts[group.label]} groups would have the name {group.label}; take another one"
                )


# The metric


def _monitors(finished: Sequence[Run]) -> Counter[str]:
    return Counter(str(run.result.get("monitor") or "val/acc") for run in finished)


def _metric(
    finished: Sequence[Run], asked: str | None, known: Sequence[str] = (), by: str | None = None
) -> tuple[str, list[str]]:
    """The metric that decides; `known` are those of all data sets. A search has decided, by what it has chosen by."""
    finished = [run for run in finished if run.status == "finished"] or list(finished)
    names = list(dict.fromkeys(name for run in finished for name in run.metrics))
    if not names:
        raise RecipeError(f"no finished run has a metric; {finished[0].folder} is one without")
    if asked is not None:
        if asked not in (known or names):
            raise RecipeError(f"there is no metric {asked}; {suggest(asked, known or names, '--metric {}')}")
        return asked, []
    monitors = _monitors(finished)
    monitor = monitors.most_common(1)[0][0]
    of_search = [by] if by is not None and larger_for(by, finished) is not None else []
    wanted = [*of_search, monitor.replace("val/", "test/", 1), monitor, "test/loss", *names]
    everywhere = [name for name in wanted if all(name in run.metrics for run in finished)]
    metric = (everywhere or [name for name in wanted if name in names])[0]
    if len(monitors) == 1:
        return metric, []
    counts = ", ".join(f"{name} {count}" for name, count in monitors.most_common())
    return metric, [f"Runs chose their best model by different metrics ({counts}); --metric NAME decides here."]
