"""Searches: sweeps whose later jobs are chosen by the results of earlier ones. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recipes.compare.runs import Run
from recipes.store.plan import sweep_of

SWEEPER = "hydra/sweeper=optuna"


def is_search(runs: Sequence[Run]) -> bool:
    """Whether runs are the trials of one search, which has chosen among them by validation."""
    places: dict[Path, Path | None] = {}
    for run in runs:
        above = run.folder.absolute().parent
        if above not in places:
            found = sweep_of(run.folder)
            places[above] = found[0] if found and SWEEPER in found[1].hydra else None
    return len(runs) > 1 and None not in places.values() and len(set(places.values())) == 1
