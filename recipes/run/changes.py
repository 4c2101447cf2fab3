"""Which words of a run may be others when it goes on: none that would have it see other samples than it would have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plugins.base import RecipeError
from recipes.config.changing import ON_RESUME
from recipes.config.quoting import show
from recipes.store import history
from recipes.store.folder import command_line

PLACES = ("trainer.accumulate_grad_batches", "trainer.devices", "trainer.num_nodes")  # of which the size of a step depends


def check_changes(earlier: Mapping[str, Any], now: Mapping[str, Any], step: int) -> None:
    """Refuse what would move a run that goes on to another place in its data, or would not be what its config says.

    Args:
        earlier: the result of the run so far.
        now: the result that is begun: its config, and the samples of a step.
        step: steps done.

    Raises:
        RecipeError: a key has changed that the state of the run has taken in; a step would take other samples.
    """
    changed = history.changes(earlier, now, step)
    for key, (before, after) in changed.items():
        if not any(f"{key}.".startswith(f"{name}.") for name in ON_RESUME):
            raise RecipeError(
                f"{key} was {show(before)} in the {step} steps done, config.yaml now says {show(after)}, which a run that goes on "
                f"cannot take up: set it back, or start a new run"
            )
    before = _samples(earlier, step)
    after = {name: now.get(name) for name in before}
    if before != after:
        moved = [f"{key}={show(changed[key][1])}" for key in PLACES if key in changed]
        name = next(name for name in before if before[name] != after[name])
        what = {"samples_per_step": "samples a step", "steps_an_epoch": "steps an epoch"}[name]
        raise RecipeError(
            f"{' '.join(moved) or 'the size of a step'} makes {after[name]} {what}, the {step} steps done had {before[name]}: the run "
            f"would go on at another place in its data; leave it out, or start a new run: {_anew(now.get('command') or ())}"
        )


def _samples(earlier: Mapping[str, Any], step: int) -> dict[str, int]:
    """What the run so far tells of the size of its steps; older runs tell less."""
    last = [entry for entry in history.history_of(earlier) if entry["step"] < step][-1:]
    if "history" in earlier and last and last[0].get("samples_per_step"):
        return {"samples_per_step": int(last[0]["samples_per_step"])}
    names = ["steps_an_epoch"] + ["samples_per_step"] * (earlier.get("phases") == 1)
    return {name: int(earlier[name]) for name in reversed(names) if earlier.get(name)}


def _anew(command: Sequence[str]) -> str:
    return command_line([str(word) for word in command])
