"""The settings of a search, as `hydra.sweeper.…` sets them with `hydra/sweeper=optuna`. Nothing here imports Optuna.

The names are those of hydra-optuna-sweeper, whose place it takes: that one asks for an Optuna of years ago.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

SAMPLERS: dict[str, dict[str, Any]] = {  # how the next trial is chosen
    "tpe": {"seed": 0, "n_startup_trials": 10, "n_ei_candidates": 24, "multivariate": False, "group": False},
    "random": {"seed": 0},
    "cmaes": {"seed": 0, "sigma0": None, "n_startup_trials": 1},
    "nsgaii": {"seed": 0, "population_size": 50, "mutation_prob": None, "crossover_prob": 0.9},
    "qmc": {"seed": 0, "qmc_type": "sobol", "scramble": True},
    "grid": {"seed": 0},
}
PRUNERS: dict[str, dict[str, Any]] = {  # which trials are given up while they run, by their validation metric
    "none": {},
    "median": {"n_startup_trials": 5, "n_warmup_steps": 0},
    "halving": {"min_resource": "auto", "reduction_factor": 4},
    "hyperband": {"min_resource": 1, "max_resource": "auto", "reduction_factor": 3},
}
LEAST = {"n_startup_trials": 0, "n_ei_candidates": 1, "min_resource": 1, "max_resource": 1, "reduction_factor": 2}  # of those


@dataclass
class OptunaConf:
    """What `hydra.sweeper.…` sets with `hydra/sweeper=optuna`."""

    _target_: str = "hydra_plugins.lightning_recipes.OptunaSweeper"
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}, {"pruner": "none"}])
    sampler: Any = MISSING  # of trials: tpe, random, cmaes, nsgaii, qmc, grid
    pruner: Any = MISSING  # of running trials: none, median, halving, hyperband
    n_trials: int = 20  # settings that are tried
    n_jobs: int | None = None  # trials at a time; null: hydra.launcher.n_jobs, on a cluster a fifth of n_trials
    objectives: Any = None  # metrics, or steps, seconds, peak_memory, parameters; null: the metric that chooses the best model
    direction: Any = None  # maximize | minimize, of each objective; null: as is known of it
    budget: str | None = None  # time after which no trial is begun any more, such as 10min
    repeats: int = 0  # fresh seeds with which the best trial is repeated at the end, because the best of many flatters itself
    max_failure_rate: float = 0.0  # share of trials that may fail


def offer_sweepers() -> None:
    """Let Hydra find them, in this process only."""
    store = ConfigStore.instance()
    store.store(group="hydra/sweeper", name="optuna", node=OptunaConf, provider="lightning_recipes")
    for group, options in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        for name, node in options.items():
            store.store(group=f"hydra/sweeper/{group}", name=name, node={"name": name, **node}, provider="lightning_recipes")
