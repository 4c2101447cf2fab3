"""The phases of a run: where one begins, what it trains on, what is told of those that have ended."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from plugins.errors import RecipeError
from recipes.data.base import Data
from recipes.engine.checkpoint import BestAndLast
from recipes.engine.module import RecipeModule
from recipes.engine.timing import never_acted


def first(seconds: float) -> dict[str, Any]:
    """The first phase, of a run that has spent some seconds before its first step."""
    return {"index": 0, "steps": 0, "seconds": seconds}


def following(module: RecipeModule, phase: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The phase that a technique asks for when one has ended; None: there is no further one.

    Args:
        module: that was trained.
        phase: that has ended.
        result: of the run so far.
    """
    asked = [plugin.next_phase(result) for plugin in module.plugins]
    found = next((phase for phase in asked if phase is not None), None)
    if found is None:
        return None
    return {
        **asdict(found),
        "index": phase["index"] + 1,
        "steps": result["steps"],
        "seconds": phase["seconds"],
        "begun": [*phase.get("begun", []), phase["steps"]],
        "ended": result["phase_results"],
        "stop_below": list(found.stop_below) if found.stop_below else None,
    }


def data_of(data: Data, phase: Mapping[str, Any]) -> Data:
    """What a phase trains on: the data, or all but the test split as its training split.

    What the data has learned of the training samples, such as the encoding of columns, stays; what techniques learn, they learn of both.
    """
    if not phase.get("all_data"):
        return data
    fingerprint, together = data.fingerprint, copy.copy(data)
    try:
        both = data.splits["train"] + data.splits["val"]
    except TypeError:
        raise RecipeError(
            "the phase trains on training and validation samples, whose sources cannot be put together: define __add__ in yours"
        ) from None
    together.splits = {**data.splits, "train": both}
    together.fingerprint = fingerprint  # of the samples as they were split, by which a run that goes on knows them
    return together


def told(
    phase: Mapping[str, Any], module: RecipeModule, keeper: BestAndLast, step_size: int, an_epoch: int, stopped_early: bool
) -> dict[str, Any]:
    """What a phase, under way or at its end, has done so far, as `result.json` and the checkpoints of later phases have it.

    Args:
        phase: as of :func:`first` or :func:`following`, with the seconds until now.
        module: that it trains.
        keeper: of its best weights.
        step_size: samples of a step.
        an_epoch: steps of an epoch.
        stopped_early: whether early stopping has ended it.
    """
    below = phase.get("stop_below")
    return {
        "name": str(phase.get("name", "first")),
        "begins": phase["steps"],
        "steps": module.steps_done,
        "epochs": module.steps_done / an_epoch,
        "seconds": round(phase["seconds"] - sum(ended["seconds"] for ended in phase.get("ended", [])), 3),
        "samples_per_step": step_size,
        "best_step": phase["steps"] + (keeper.best_step or 0),
        "metrics": {name: value for name, value in keeper.best_metrics.items() if name != "epoch"},
        "stopped_early": stopped_early,
        "trained_on_validation": bool(phase.get("all_data")),
        "until": {below[0]: below[1]} if below else {},
        "events": [
            *(f"{plugin.state_key}: {line}" for plugin in module.plugins for line in plugin.events),
            *(f"{name}: {line}" for name, line in (never_acted(module) if keeper.ended else {}).items()),
        ],
    }
