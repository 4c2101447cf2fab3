"""A search of the settings that were typed, and what is told of it at its end."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf

from plugins.errors import RecipeError
from recipes.config.duration import seconds_of
from recipes.config.errors import one_line
from recipes.config.kinds import is_number, is_texts
from recipes.config.quoting import show
from recipes.config.settings import SEARCH_RESULTS
from recipes.config.sweepers import LEAST, PRUNERS, SAMPLERS
from recipes.config.types import expected
from recipes.config.untrusted import read_yaml
from recipes.launch.objectives import value_of
from recipes.launch.space import Space, space_of
from recipes.store.files import write_text

if TYPE_CHECKING:
    from recipes.launch.study import Search
    from recipes.launch.sweep import Sweep


CLASSES = {
    **{"tpe": "TPESampler", "random": "RandomSampler", "cmaes": "CmaEsSampler", "nsgaii": "NSGAIISampler", "qmc": "QMCSampler"},
    **{"grid": "GridSampler", "median": "MedianPruner", "halving": "SuccessiveHalvingPruner", "hyperband": "HyperbandPruner"},
}


def search_of(hydra: Any, words: Sequence[str], sweep: Sweep) -> Search:
    """The search that Hydra's settings and the words of a command describe."""
    from recipes.launch.study import Search

    settings: dict[str, Any] = OmegaConf.to_container(hydra.sweeper, resolve=True)  # type: ignore[assignment]
    for name in ("objectives", "direction"):
        if settings[name] is not None and not isinstance(settings[name], list):
            settings[name] = [settings[name]]
    if wrong := [each for each in settings["direction"] or () if each not in ("maximize", "minimize", None)]:
        raise RecipeError(f"hydra.sweeper.direction must be maximize or minimize, got {show(wrong[0])}")
    if wrong := [each for each in settings["objectives"] or () if not isinstance(each, str)]:
        raise RecipeError(f"hydra.sweeper.objectives must be names of metrics, got {show(wrong[0])}")
    if seen := [each for each in settings["objectives"] or () if each.startswith("test/")]:
        raise RecipeError(
            f"hydra.sweeper.objectives: samples that a search chooses by test nothing any more, and it would by {seen[0]}: type "
            f"{seen[0].replace('test/', 'val/', 1)}"
        )
    count = max(1, len(settings["objectives"] or ()))
    if len(settings["direction"] or ()) > count:
        raise RecipeError(
            f"hydra.sweeper.direction={show(settings['direction'])}: expected {count}, one for each of hydra.sweeper.objectives"
        )
    space = space_of(words)
    prunes = settings["pruner"]["name"] != "none"
    if prunes and settings["objectives"]:
        raise RecipeError(
            f"hydra/sweeper/pruner={settings['pruner']['name']} goes by the metric that chooses the best model: leave hydra.sweeper.objectives out"
        )
    if settings["sampler"]["name"] == "grid":
        settings["n_trials"] = min(settings["n_trials"], prod(len(values) for values in space.grid().values()))
    _take_back(sweep.folder)
    return Search(
        settings,
        space,
        sweep.make,
        sweep.folder,
        at_a_time=settings["n_jobs"] or at_a_time(sweep.n_jobs, settings["n_trials"], len(space.seeds)),
        sampler=sampler_of(settings["sampler"], space),
        pruner=made("pruner", settings["pruner"]) if prunes else None,
        seconds=None if settings["budget"] is None else seconds_of("hydra.sweeper.budget", settings["budget"]),
    )


def _take_back(folder: Path) -> None:
    """Leave of what an earlier start has found the jobs that chose nothing: a search that goes on may find a better trial."""
    if (folder / SEARCH_RESULTS).exists():
        write_text(folder / SEARCH_RESULTS, yaml.safe_dump({"repeated_jobs": _earlier(folder)}))


def _earlier(folder: Path) -> list[str]:
    """The jobs of a search that chose nothing, as far as they were noted."""
    with suppress(FileNotFoundError):
        names = read_yaml(folder / SEARCH_RESULTS).get("repeated_jobs")
        return list(names) if is_texts(names) else []  # type: ignore[arg-type]
    return []


def at_a_time(jobs: int, trials: int, seeds: int) -> int:
    """The trials that run at a time: as many as the jobs make, and a fifth of all where a cluster takes any number, so that some are learned from."""
    return max(1, trials // 5 if jobs == sys.maxsize else jobs // max(1, seeds))


def sampler_of(node: Mapping[str, Any], space: Space) -> Any:
    """Optuna's sampler, which draws the same trials each time."""
    return made("sampler", {**node, "search_space": space.grid()} if node["name"] == "grid" else node)


def made(what: str, node: Mapping[str, Any]) -> Any:
    """An object of Optuna's, by its name here."""
    known = {"sampler": SAMPLERS, "pruner": PRUNERS}[what]
    if node["name"] not in [*known]:
        raise RecipeError(f"hydra/sweeper/{what} must be one of {', '.join(known)}, got {show(node['name'])}")
    arguments = {key: value for key, value in node.items() if key != "name"}
    for key, default in known[node["name"]].items():
        like, comment = (1, "| auto") if default == "auto" else (default, "")
        if default is not None and key in arguments and (words := expected(arguments[key], like, comment)):
            raise RecipeError(f"hydra.sweeper.{what}.{key} must be {words}, got {show(arguments[key])}")
    for key, number in arguments.items():  # of what Optuna itself looks at too late
        if is_number(number) and key in LEAST and number < LEAST[key]:
            raise RecipeError(f"hydra.sweeper.{what}.{key} must be a whole number ≥ {LEAST[key]}, got {show(number)}")
        if key == "sigma0" and number is not None and not (is_number(number) and number > 0):
            raise RecipeError(f"hydra.sweeper.{what}.sigma0 must be a number above 0, or null, got {show(number)}")
    try:
        if node["name"] == "cmaes":  # Optuna imports it when it first draws by it
            importlib.import_module("cmaes")
        return getattr(importlib.import_module(f"optuna.{what}s"), CLASSES[node["name"]])(**arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"hydra.sweeper.{what}: {one_line(error)}") from None
    except ImportError as error:  # such as cmaes
        raise RecipeError(
            f"hydra/sweeper/{what}={node['name']} needs a package of its own: pip install {error.name or one_line(error)}"
        ) from None


def _repeated(search: Search, folder: Path) -> list[str]:
    """The jobs that have trained the best trial again, in this start of a search or in earlier ones, and were tried in none."""
    tried = {str(job.folder.relative_to(folder)) for trial in search.trials for job in trial.jobs}
    again = [str(job.folder.relative_to(folder)) for job in search.repeated]
    return [name for name in dict.fromkeys([*_earlier(folder), *again]) if name not in tried]


def write_repeated(search: Search, folder: Path) -> None:
    """Which jobs choose nothing, before they are trained: the search may be ended on the way."""
    if search.repeated:
        write_text(folder / SEARCH_RESULTS, yaml.safe_dump({"repeated_jobs": _repeated(search, folder)}))


def write_found(search: Search, folder: Path) -> None:
    """What was found, for the end of the command and the report."""
    best = search.best
    found: dict[str, Any] = {
        "name": "optuna",
        "trials": len(search.trials),
        "pruned": sum(trial.pruned_at is not None for trial in search.trials),
        "best_words": [] if best is None else [word for word in best.words if word not in search.space.fixed],
        "best_job": None if best is None else str(best.jobs[0].folder.relative_to(folder)),
    }
    if best is not None:
        name = (search.objectives or [str(best.jobs[0].result.get("monitor"))])[0]
        values = [value for job in best.jobs if (value := value_of(job, name)) is not None]
        again = [value for job in search.repeated if (value := value_of(job, name)) is not None]
        found |= {"metric": name, "best_value": fmean(values) if values else None}
        found |= {"objectives": search.objectives} if len(search.objectives) > 1 else {}
        if search.repeated:
            found |= {
                "repeats": len(search.repeated),
                "repeated": len(again),
                "repeated_mean": fmean(again) if again else None,
                "repeated_deviation": stdev(again) if len(again) > 1 else None,
            }
    found |= {"repeated_jobs": names} if (names := _repeated(search, folder)) else {}
    write_text(folder / SEARCH_RESULTS, yaml.safe_dump(found, sort_keys=False, allow_unicode=True))
