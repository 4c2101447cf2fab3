"""Searches: sweeps whose later jobs are chosen by the results of earlier ones. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recipes.compare.groups import Group
from recipes.compare.runs import Run
from recipes.launch.search import chosen_job, repeated_jobs
from recipes.store.plan import sweep_of

SWEEPER = "hydra/sweeper=optuna"


def repeats(runs: Sequence[Run]) -> frozenset[Path]:
    """The folders of runs in which a search has trained its best trial again, with seeds that nothing was chosen by."""
    places = {found[0] for run in runs if (found := sweep_of(run.folder))}
    again = {folder.absolute() for place in places for folder in repeated_jobs(place)}
    return frozenset(run.folder for run in runs if run.folder.absolute() in again)


def is_search(runs: Sequence[Run]) -> bool:
    """Whether runs are the trials of one search, which has chosen among them by validation."""
    places: dict[Path, Path | None] = {}
    for run in runs:
        above = run.folder.absolute().parent
        if above not in places:
            found = sweep_of(run.folder)
            places[above] = found[0] if found and SWEEPER in found[1].hydra else None
    return len(runs) > 1 and None not in places.values() and len(set(places.values())) == 1


def chosen(groups: Sequence[Group]) -> tuple[Group, str] | None:
    """The group that the search of these trials says it has chosen, and by what; None where it says none, or that is not here."""
    found = sweep_of(groups[0].runs[0].folder)
    told = chosen_job(found[0]) if found else None
    if told is None:
        return None
    return next(((group, told[1]) for group in groups for run in group.runs if run.folder.absolute() == told[0]), None)
