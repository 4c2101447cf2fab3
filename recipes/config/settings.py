"""Words below `hydra.`: the settings of Hydra, its launchers and its sweepers.

Hydra takes a plus before a setting that there is not, and nothing reads it; a launcher of another package trains several jobs
in one process; a sweep writes its files before anybody looks at the number of its jobs. So all of them are looked at before
Hydra starts. Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plugins.errors import RecipeError
from recipes.config.quoting import show
from recipes.config.spelling import suggest

SEARCH_RESULTS = "optimization_results.yaml"  # in the folder of a search
STARTS = ("warm", "fresh")  # of jobs
LEAST: dict[str, dict[str, int]] = {  # that numbers may be
    "launcher": {
        **{"jobs_per_gpu": 1, "timeout_min": 1, "cpus_per_task": 1},
        **{"gpus_per_node": 0, "mem_gb": 0, "signal_delay_s": 0, "max_num_timeout": 0},
    },
    "launcher.ray.init": {"num_cpus": 0, "num_gpus": 0},
    "launcher.ray.remote": {"num_cpus": 0, "num_gpus": 0, "memory": 0},
    "sweeper": {"n_trials": 1, "n_jobs": 1, "repeats": 0, "max_batch_size": 1},
}
INSTEAD = {  # of launchers of other packages
    "basic": "processes",
    "joblib": "processes",
    "submitit_local": "processes",
    "submitit_slurm": "slurm; what it has no name for goes into hydra.launcher.additional_parameters",
    "ray_aws": "ray hydra.launcher.ray.init.address=auto on the cluster's first machine",
}


def expect_settings(overrides: Sequence[Override], settings_of_hydra: Callable[[Sequence[str]], DictConfig]) -> None:
    """Raise for a setting that the chosen launcher, sweeper or Hydra itself does not have.

    Args:
        overrides: all words of the command line; those of other groups are not looked at.
        settings_of_hydra: its settings with the options that words choose.
    """
    ours = [override for override in overrides if override.is_hydra_override()]
    settings = [override for override in ours if override.key_or_group.startswith("hydra.")]
    if not settings:
        return
    tree = settings_of_hydra([str(override.input_line) for override in ours if override not in settings])
    for override in settings:
        node: Any = tree
        path = override.key_or_group.split(".")
        for depth in range(1, len(path)):
            if not isinstance(node, DictConfig) or node._is_none():
                break
            place, name = ".".join(path[:depth]), path[depth]
            names = [str(other) for other in node]
            if name not in names:
                if OmegaConf.get_type(node) is dict:  # takes any name
                    break
                hint = suggest(name, [other for other in names if not other.startswith("_")], place + ".{}")
                raise RecipeError(f"there is no setting {place}.{name}; {hint}")
            node = node._get_node(name)


def check_settings(config: DictConfig, multirun: bool) -> None:
    """Raise for settings with which no sweep could run: another package's launcher, no jobs at all, jobs outside of the sweep.

    Args:
        config: Hydra's own settings in a composed config.
        multirun: whether a sweep is run.
    """
    if not str(config.launcher.get("_target_")).startswith("hydra_plugins.lightning_recipes."):
        name = config.runtime.choices["hydra/launcher"]
        instead = INSTEAD.get(name, "processes, or slurm or ray on a cluster")
        raise RecipeError(
            f"hydra/launcher={name} would not keep the jobs of a sweep apart, nor know which are finished: type "
            f"hydra/launcher={instead}"
        )
    expect_jobs(config.launcher.get("n_jobs"))
    if (start := config.launcher.get("start", "warm")) not in STARTS:
        raise RecipeError(f"hydra.launcher.start must be one of {', '.join(STARTS)}, got {start}")
    for place, names in LEAST.items():
        node = OmegaConf.select(config, place)
        for name, least in names.items() if isinstance(node, DictConfig) else ():
            if isinstance(number := node.get(name), int | float) and not number >= least:
                kind = "whole number" if isinstance(number, int) else "number"
                raise RecipeError(f"hydra.{place}.{name} must be a {kind} ≥ {least}, got {show(number)}")
    if not 0 <= (share := config.sweeper.get("max_failure_rate", 0.0)) <= 1:
        raise RecipeError(f"hydra.sweeper.max_failure_rate must be a number from 0 to 1, got {show(share)}")
    if multirun:
        with suppress(OmegaConfBaseException):  # it refers to what is known of a job only
            expect_below(Path("sweep"), str(config.sweep.subdir))


def expect_jobs(number: object) -> None:
    """Raise for a number of jobs at a time that is none."""
    if isinstance(number, int) and (number == 0 or number < -1):
        raise RecipeError(f"hydra.launcher.n_jobs must be a whole number ≥ 1, or -1 for as many as fit, got {show(number)}")


def expect_below(folder: Path, name: str) -> None:
    """Refuse the folder of a job that is not below the sweep's."""
    place = Path(os.path.normpath(folder / name))
    if Path(os.path.normpath(folder)) not in place.parents:
        raise RecipeError(f"the folder of a job must be inside of the sweep's, {name!r} is not; see hydra.sweep.subdir")
