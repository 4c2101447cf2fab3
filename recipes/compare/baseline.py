"""Which group is the baseline of a comparison: asked for, chosen by a search, or the one with nothing added. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from plugins.errors import RecipeError
from recipes.compare.groups import Group, larger_for
from recipes.compare.notes import shorten
from recipes.compare.runs import find
from recipes.config.catalogue import Catalogue
from recipes.config.quoting import quote
from recipes.config.spelling import nearest


def baselines(sets: Sequence[Sequence[Group]], catalogue: Catalogue, asked: str | None) -> list[tuple[Group, list[str]]]:
    """The baseline of each data set; where the one that was asked for is not on all of them, the others have their own."""
    if asked is None:
        return [_baseline(groups, catalogue) for groups in sets]
    found: list[tuple[Group, list[str]] | None] = []
    problems: list[RecipeError] = []
    for groups in sets:
        try:
            found.append((_asked_baseline(groups, asked), []))
        except RecipeError as error:
            found.append(None)
            problems.append(error)
    there = [chosen for chosen in found if chosen]
    if not there:
        raise problems[0]
    same = {chosen.label for chosen, _ in there}
    for place, groups in enumerate(sets):
        if found[place] is None:
            alike = [group for group in groups if group.label in same]
            found[place] = (alike[0], []) if alike else _baseline(groups, catalogue)
    return [chosen for chosen in found if chosen]


def chosen_by_search(
    groups: Sequence[Group], by: str, again: frozenset[Path], best: Group | None = None
) -> tuple[Group, list[str]]:
    """The trial that a search has chosen.

    Args:
        groups: the trials.
        by: what it has chosen by; where it does not tell which it chose, what chose the best model of each.
        again: runs that came afterwards, and chose nothing.
        best: the trial that it says it chose; None: the best by `by`, the first of equals.
    """
    sign = 1.0 if larger_for(by, [run for group in groups for run in group.runs]) else -1.0

    def score(group: Group) -> float:
        value = sign * group.mean(by, again)
        return value if math.isfinite(value) else -math.inf

    best = best or max(groups, key=score)
    names = dict.fromkeys((by, by.replace("val/", "test/", 1)))
    told = ", ".join(f"{name} {value:.4f}" for name in names if math.isfinite(value := best.mean(name, again)))
    return best, [
        f"Baseline: {shorten(best.label)}, which the search chose of {len(groups)} trials by {by}{told and f' ({told})'}; "
        "--baseline LABEL chooses another one."
    ]


def _baseline(groups: Sequence[Group], catalogue: Catalogue) -> tuple[Group, list[str]]:
    if len(groups) == 1:
        return groups[0], []

    def added(group: Group) -> float:
        if group.runs[0].resumed:  # no run of its config alone
            return math.inf
        return sum(len(names) for name, names in group.options.items() if name not in catalogue.defaults)

    fewest = min(map(added, groups))
    as_few = [group for group in groups if added(group) == fewest]
    why = "without added techniques" if fewest == 0 else "with the fewest added techniques"
    why = f"the group {why}" if len(as_few) == 1 else f"the first of {len(as_few)} groups {why}"
    return as_few[0], [f"Baseline: {shorten(as_few[0].label)}, {why}; --baseline LABEL chooses another one."]


def _asked_baseline(groups: Sequence[Group], asked: str) -> Group:
    labels = [group.label for group in groups]
    if asked in labels:
        return groups[labels.index(asked)]
    if Path(asked).is_dir():
        folders = {folder.resolve() for folder in find([Path(asked)])}
        there = [group for group in groups if any(run.folder.resolve() in folders for run in group.runs)]
        if len(there) == 1:
            return there[0]
        what = f"runs of {len(there)} groups" if there else "no finished run"
        raise RecipeError(f"--baseline {asked}: the folder holds {what}; name one: {_choices(labels)}")
    close = nearest(asked, labels)
    listed = f"did you mean {quote(close)}? There is" if close else "there is"
    raise RecipeError(f"--baseline {asked}: there is no such group or folder; {listed} {_choices(labels)}")


def _choices(labels: Sequence[str]) -> str:
    shown = ", ".join(map(quote, labels[:20]))
    return shown + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
