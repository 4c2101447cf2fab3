"""How far a run is to be trained, in steps or epochs, and what becomes of that when it is resumed with another limit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from plugins.base import Option, Plugin, RecipeError, called
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.choices import choices
from recipes.config.duration import seconds_of, twice
from recipes.config.quoting import quote, typed
from recipes.run.build import build_optimizer
from recipes.run.classes import instantiate
from recipes.store.folder import command_line

EARLY = "validation did not improve any more; for more patience start a new run with a larger stopping.patience"
LIMITS = ("max_epochs", "max_steps")


def why_early(config: Mapping[str, Any]) -> str:
    """Why a training ended before its limit: early stopping, or a callback."""
    if config.get("stopping"):
        return EARLY
    return f"by {' or '.join(config.get('callback') or ['a callback'])}; to train for longer start a new run with other values of it"


def limit_of(config: Mapping[str, Any]) -> str:
    """The limit in force, as it is typed: max_steps, where it is set, takes the place of max_epochs."""
    name = "max_steps" if config["max_steps"] >= 0 else "max_epochs"
    return f"{name}={config[name]}"


def steps_until(config: Mapping[str, Any], an_epoch: int) -> int:
    """The steps of the first phase: all that there are, unless a technique asks for more phases."""
    return int(config["max_steps"] if config["max_steps"] >= 0 else config["max_epochs"] * an_epoch)


def steps_an_epoch(result: Mapping[str, Any]) -> int:
    """Of a finished run; older results have but the quotient."""
    return int(result.get("steps_an_epoch") or round(result["steps"] / result["epochs"] if result["epochs"] else 1))


def goes_further(config: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    """Whether a finished run is asked for more steps than it has done."""
    if earlier.get("ended_by") == "max_time":
        return _time(config) > _time(earlier["config"])
    if earlier.get("stopped_early"):
        return False
    before, now = (steps_until(each, steps_an_epoch(earlier)) for each in (earlier["config"], config))
    return now != before and now > (earlier["steps"] if earlier.get("phases", 1) == 1 else before)


def told_finished(
    earlier: Mapping[str, Any], folder: Path, words: Sequence[str], plugins: Callable[[], Iterable[Plugin]]
) -> Iterator[str]:
    """The lines about a run that is finished: what to type to train it for longer, and which words of a resume did nothing.

    The techniques are built only where they have a say in it, so that an older run with a value that is refused now is still shown.
    """
    yield _longer(earlier, folder, plugins)
    if any(word.startswith("resume=") for word in words):
        unused = [word for word in words if word.partition("=")[0] not in ("resume", "max_steps", "max_epochs")]
        if unused:
            yield f"nothing is changed by {' '.join(map(quote, unused))}"


def _longer(earlier: Mapping[str, Any], folder: Path, plugins: Callable[[], Iterable[Plugin]]) -> str:
    if earlier.get("ended_by") == "max_time":
        return f"the run is finished; {time_is_up(earlier['config'], folder)}"
    if earlier.get("stopped_early"):
        return f"the run is finished; stopped early: {why_early(earlier['config'])}"
    config, an_epoch = earlier["config"], steps_an_epoch(earlier)
    name = limit_of(config).partition("=")[0]
    longer = {**config, name: 2 * max(1, config[name])}
    steps, before = steps_until(longer, an_epoch), steps_until(config, an_epoch)
    with_share = [plugin for plugin in plugins() if not plugin.is_off]
    same = same_rates(config, before, steps, before) and not _others(with_share, before, steps, before)
    if earlier.get("phases", 1) > 1 or not same:
        return f"the run is finished; one that is trained for longer is a new run: {_anew(earlier, longer)}"
    return f"the run is finished; to train it for longer: python train.py {typed('resume', folder)} {limit_of(longer)}"


def check_limit(
    config: Mapping[str, Any],
    earlier: Mapping[str, Any],
    recipe: Mapping[str, Any],
    step: int,
    an_epoch: int,
    options: Iterable[Option],
) -> None:
    """Refuse a limit with which a run that goes on would not end where an uninterrupted one with that limit ends.

    Args:
        config: of the run that goes on.
        earlier: the result of the run so far.
        recipe: what the checkpoint says of the run.
        step: steps done in the phase of the checkpoint.
        an_epoch: steps of an epoch.
        options: that have a say in the training.

    Raises:
        RecipeError: more steps are done already; another phase has begun; the learning rates, or the steps in which a technique
            acts, would have been others.
    """
    before, now = steps_until(earlier["config"], an_epoch) if "config" in earlier else -1, steps_until(config, an_epoch)
    limit, new = limit_of(config), f"start a new run: {_anew(earlier, config)}"
    phase = recipe["phase"]
    if phase["index"]:
        if before not in (-1, now):
            raise RecipeError(
                f"{limit}: the training that it limits has ended at step {phase['steps']}, and phase {phase.get('name')!r} has "
                f"begun, which builds on that: leave {limit} out, or {new}"
            )
        return
    if now < step:
        raise RecipeError(f"{limit} is less than what is done, {step} steps of {an_epoch} an epoch: leave it out, or {new}")
    before = recipe.get("total_steps", before)  # older checkpoints do not tell
    if before > 0 and not same_rates(config, before, max(1, now), step):
        name = ", ".join(choices(Catalogue(installed_folders()), config, earlier.get("command", ()))["scheduler"])
        raise RecipeError(
            f"{limit}: the {step} steps done had the learning rates of scheduler={name} over {before} steps, over {now} they are "
            f"others: leave {limit} out, or {new}"
        )
    if before > 0 and (others := _others(options, before, max(1, now), step)):
        raise RecipeError(
            f"{limit}: the {step} steps done had {others[0]} over {before} steps, over {now} it acts otherwise in them: leave "
            f"{limit} out, or {new}"
        )


def _others(options: Iterable[Option], before: int, now: int, done: int) -> list[str]:
    """The options that in the steps done do not do the same in a training of `before` steps and in one of `now` steps."""
    return [] if before == now else [called(option) for option in options if not option.same_so_far(done, before, now)]


def time_is_up(config: Mapping[str, Any], folder: Path) -> str:
    """What to type to go on with a run that has ended by its time."""
    longer = twice("max_time", config["max_time"])
    return f"it ended by max_time={config['max_time']}; to train it for longer: python train.py {typed('resume', folder)} max_time={longer}"


def _time(config: Mapping[str, Any]) -> float:
    """The seconds for which a run may train."""
    return math.inf if config.get("max_time") is None else seconds_of("max_time", config["max_time"])


def _anew(earlier: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    words: Sequence[str] = [str(word) for word in earlier.get("command", []) if word.partition("=")[0] not in LIMITS]
    return command_line([*words, limit_of(config)])


# ------------------------------------------------------------------ schedules


def same_rates(config: Mapping[str, Any], before: int, now: int, done: int) -> bool:
    """Whether `done` steps under a schedule made for `before` steps, gone on with under one for `now`, are as under the latter.

    It is tried on an optimizer of a single number, so it holds for any scheduler; rates, and whatever else it moves.
    """
    if before == now or done == 0:
        return True
    make, _ = build_optimizer(config)
    schedule = instantiate(config["scheduler"])

    def made_for(steps: int) -> tuple[Optimizer, LRScheduler]:
        optimizer = make([nn.Parameter(torch.zeros(1))])
        return optimizer, schedule(optimizer, steps)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer has made a step
        whole, earlier, later = made_for(now), made_for(before), made_for(now)
        if not _in_step(whole, earlier, done):
            return False
        later[0].load_state_dict(earlier[0].state_dict())
        later[1].load_state_dict(earlier[1].state_dict())
        return _in_step(whole, later, now - done)


def _in_step(first: tuple[Optimizer, LRScheduler], second: tuple[Optimizer, LRScheduler], steps: int) -> bool:
    """Go on by so many steps; whether both give the same in each."""
    for _ in range(steps):
        if _rates(first[0]) != _rates(second[0]):
            return False
        for _, scheduler in (first, second):
            if not isinstance(scheduler, ReduceLROnPlateau):  # which follows validations
                scheduler.step()
    return True


def _rates(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [
        {name: float(value) if isinstance(value, torch.Tensor) else value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
