"""Searches: sweeps whose later jobs Optuna chooses by the results of earlier ones. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import ListConfig

from plugins.directions import larger_is_better
from plugins.errors import RecipeError
from recipes.config.kinds import is_number
from recipes.config.quoting import show, typed
from recipes.config.untrusted import read_yaml
from recipes.launch.job import Job


def best_of_search(folder: Path) -> str:
    """What Optuna has found, by the metric that chooses models, as words for the command line; empty for other sweeps."""
    path = folder / "optimization_results.yaml"
    try:
        found = read_yaml(path)
    except FileNotFoundError:
        return ""
    best, value = found.get("best_params") or {}, found.get("best_value")
    if not isinstance(best, Mapping) or not is_number(value):
        return ""
    words = " ".join(f"{name}={show(value)}" for name, value in best.items())
    return f"{words}  ({value:.4f} in validation)" if words else ""


def check_direction(folder: Path, jobs: Sequence[Job], direction: Any) -> None:
    """Refuse to look for the largest loss, or for the smallest accuracy; the jobs that are finished are kept."""
    known = {
        (name, larger_is_better(name, job.result.get("directions"))) for job in jobs if (name := job.result.get("monitor"))
    }
    for name, larger in known if direction is not None and not isinstance(direction, list | ListConfig) else ():
        right = "maximize" if larger else "minimize"
        if larger is not None and right != getattr(direction, "name", direction):
            words = f"{typed('sweep', folder)} hydra.sweeper.direction={right}"
            raise RecipeError(f"the best model of a job is chosen by {name}; to go on: python train.py -m {words}")
