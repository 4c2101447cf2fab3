"""What a run tells of itself: the entries of `result.json`, and what loggers are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from plugins.base import Plugin, declared_directions, does_something
from recipes.config.effect import words_with_effect
from recipes.data.loaders import StepLoader
from recipes.engine.checkpoint import BestAndLast
from recipes.engine.module import RecipeModule
from recipes.launch.identity import here
from recipes.run.build import count_parameters
from recipes.run.phases import told
from recipes.run.provenance import environment, peak_memory
from recipes.store import history
from recipes.store.phase_results import SEEN
from recipes.store.plan import Plan, sweep_of


def techniques(chosen: Mapping[str, Sequence[str]], plugins: Sequence[Plugin]) -> list[str]:
    """The names of what a run was asked to use, of all options: its techniques, its optimizer, its scheduler and its callbacks."""
    acting = sorted(plugin.option for plugin in plugins if does_something(plugin))
    schedule = [name for name in chosen["scheduler"] if name != "constant"]
    return [*acting, *chosen["optimizer"], *schedule, *sorted(chosen.get("callback", []))]


def at_start(
    config: Mapping[str, Any],
    command: Sequence[str],
    chosen: Mapping[str, Sequence[str]],
    module: RecipeModule,
    loader: StepLoader,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    """The result of a run that has not begun.

    Args:
        config, command: it is started with.
        chosen: its options, by group.
        module: built for it.
        loader: of its training split.
        metrics: of the run that it goes on with.
    """
    result: dict[str, Any] = {"status": "running", "config": config, "command": command, "seed": config["seed"]}
    result["matmul_precision"] = torch.get_float32_matmul_precision()
    result |= {"techniques": techniques(chosen, [*module.plugins, *module.left_out]), "metrics": dict(metrics), **environment()}
    result |= {"choices": chosen, "data_content": module.data_content}
    result |= {"steps_an_epoch": len(loader), "samples_per_step": loader.step_size}
    result |= {"slurm_job": job.number} if (job := here().job) else {}
    return result | {"history": [history.entry(result)]}


def of_phase(
    phase: Mapping[str, Any],
    module: RecipeModule,
    keeper: BestAndLast,
    loader: StepLoader,
    trainer: L.Trainer,
    stopped_early: bool,
) -> dict[str, Any]:
    """What is known of a phase, under way or at its end, and of the run so far."""
    phases = [*phase.get("ended", []), told(phase, module, keeper, loader.step_size, len(loader), stopped_early)]
    larger = "max" if keeper.larger else "min"
    assert module.setting is not None
    return {
        "metrics": dict(phases[-1]["metrics"]),
        "monitor": keeper.monitor,
        # which value is best of the metrics of which that is not known from their names alone
        "directions": {**declared_directions(module.plugins, module.setting.tasks), keeper.monitor.partition("/")[2]: larger},
        "best_step": phases[-1]["best_step"],
        "steps": phase["steps"] + module.steps_done,
        "epochs": sum(each["epochs"] for each in phases),
        "phases": phase["index"] + 1,
        "events": [line for each in phases for line in each.get("events", [])],  # of phases of older checkpoints none are known
        "phase_begins": [*phase.get("begun", []), phase["steps"]],
        "phase_results": phases,
        "stopped_early": any(each["stopped_early"] for each in phases),
        "seconds": round(phase["seconds"], 3),
        "devices": trainer.world_size,
        "nodes": trainer.num_nodes,
        "samples_per_step": loader.step_size,
        "samples_per_second": round(
            sum(each["steps"] * each["samples_per_step"] for each in phases) / max(phase["seconds"], 1e-9), 1
        ),
        "parameters": count_parameters(module),
        "peak_memory": peak_memory(module.device),
    }


def rulers_of(
    phase: Mapping[str, Any], loss: Mapping[str, Any], module: RecipeModule, metrics: Iterable[str]
) -> dict[str, Any]:
    """What metrics are measured with; of a phase that trains on validation samples too, that these were trained on."""
    found: dict[str, Any] = {"loss": loss, **module.rulers}
    seen = [name for name in metrics if phase.get("all_data") and not name.startswith(("train/", "test/"))]
    return found | {name: {**_ruler(found, name), SEEN: True} for name in seen}


def _ruler(found: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    places = (metric, metric.partition("/")[2], metric.rpartition("/")[2])
    return next((found[place] for place in places if place in found), {})


def for_loggers(folder: Path, result: Mapping[str, Any], directions: Mapping[str, str]) -> dict[str, Any]:
    """What a logger tells about the run."""
    config, changed = result["config"], history.resumed(result)
    sweep, plan = sweep_of(folder) or (None, None)
    return {
        "name": config["name"],
        "recipe": _recipe(result["command"], plan) + (f" resumed: {changed}" if changed else ""),
        "group": sweep.name if sweep else None,
        "tags": [*result["techniques"], *map(str, config["tags"])],
        "notes": config["notes"],
        "config": config,
        "directions": dict(directions),
    }


def _recipe(command: Sequence[str], plan: Plan | None) -> str:
    """The words that set the run apart, seeds aside: from the defaults or, in a sweep, from its other runs."""
    words = words_with_effect(command)
    if plan is None:
        return " ".join(words) or "defaults"
    # a search adds jobs as it goes on, so a word is that of all only if the sweep was started with it
    everywhere = [{word.lower() for word in each} for each in (plan.words, *plan.jobs.values())]
    apart = [word for word in words if any(word.lower() not in each for each in everywhere)]
    return " ".join(apart or words) or "defaults"
