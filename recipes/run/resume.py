"""A run that is resumed: the command of the whole, and what an error of its checkpoint is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plugins.errors import RecipeError
from recipes.config.errors import out_of_memory
from recipes.config.run_files import CHECKPOINTS, LAST
from recipes.engine.checkpoint import load_checkpoint
from recipes.engine.module import RecipeModule
from recipes.engine.stop import Stopped
from recipes.engine.units import MEAN, InTargetUnits
from recipes.launch import failures, ranks
from recipes.run.changes import check_changes
from recipes.run.limits import check_limit
from recipes.store import history
from recipes.store.shapes import check_records

log = logging.getLogger("recipes")


def resume_command(earlier: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The command of the whole run: that of its start, with what was changed on resuming."""
    changes = [word for word in overrides if not word.startswith(("resume=", "overwrite="))]
    changed = {word.partition("=")[0].lstrip("+") for word in changes}

    def replaced(word: str) -> bool:
        """A value of a group goes with the option that had it: `trainer=ddp` leaves nothing of an earlier `trainer.devices=4`."""
        key = word.partition("=")[0].lstrip("+")
        return key in changed or any(key.startswith(f"{group}.") for group in changed)

    return [*(word for word in earlier.get("command", []) if not replaced(word)), *changes]


def is_of_content(error: Exception) -> bool:
    """Whether an error at the start of a resumed run comes from what the checkpoint holds, not from the machine or the user."""
    others = (RecipeError, Stopped, OSError)
    if out_of_memory(error):
        return False
    return not isinstance(error, others) and not (ranks.world() > 1 and failures.CONSEQUENCE.search(str(error)))


class Start(NamedTuple):
    """Where a resumed run goes on from.

    Attributes:
        phase: the phase that was under way.
        step: steps done in it.
        logged: names of the numbers that were logged at that step; None where an older checkpoint does not tell.
    """

    phase: dict[str, Any]
    step: int
    logged: list[str] | None

    @property
    def done(self) -> int:
        """Steps done in all phases."""
        return int(self.phase["steps"]) + self.step


def start_of_resumed(
    folder: Path, config: Mapping[str, Any], earlier: Mapping[str, Any], result: dict[str, Any], module: RecipeModule
) -> Start | None:
    """Where to go on from; None starts over, for a run that was stopped before its first checkpoint.

    Args:
        folder: of the run.
        config: it goes on with.
        earlier: what its `result.json` holds.
        result: of the run that goes on; its history is written here.
        module: built for that.

    Raises:
        RecipeError: it cannot go on, or not with this config.
    """
    check_records(folder)
    last = folder / CHECKPOINTS / LAST
    if not last.exists():
        if earlier.get("status") == "finished" and earlier.get("steps") != 0:  # no step leaves no state
            raise RecipeError(f"{last} is not there, so the run cannot go on: start a new one with its words")
        log.warning("no checkpoint in %s: the run starts over", folder)
        return None
    checkpoint = load_checkpoint(last)
    recipe, step = checkpoint["recipe"], int(checkpoint["global_step"])
    if recipe.get("data", module.data_seen) != module.data_seen:
        moved = {name: value for name in ("path", "labels", "root") if (value := config["data"].get(name))}
        place = " ".join(f"data.{name}={value}" for name, value in moved.items())
        raise RecipeError(
            f"{place or 'the data'} has other content than what the run was trained on: name the data as it was, or start "
            f"a new run"
        )
    if (f"model.{MEAN}" in checkpoint["state_dict"]) != isinstance(module.model, InTargetUnits):
        raise RecipeError(f"{last} is of a run that learned its targets in other units: start a new run with its words")
    done = recipe["phase"]["steps"] + step
    check_changes(earlier, result, done)
    check_limit(config, earlier, recipe, step, result["steps_an_epoch"], module.options)
    result["history"] = history.go_on(earlier, result, done)
    at, names = recipe.get("logged") or (None, None)  # older checkpoints do not tell
    logged = None if at is None else names if at == done else []
    return Start(recipe["phase"], step, logged)
