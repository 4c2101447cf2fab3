"""Where Lightning's loops stand, as a function of the number of steps done: all that is named here is private to Lightning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch.loops import _Loop


class Position(NamedTuple):
    """Between two steps: epochs begun, epochs ended, and batches of the epoch under way."""

    begun: int
    ended: int
    batches: int


def position(steps: int, an_epoch: int) -> Position:
    """The position after `steps` steps, `an_epoch` of which make an epoch."""
    ended, batches = divmod(steps, an_epoch)
    return Position(ended + (batches > 0), ended, batches)


def steps_an_epoch(trainer: L.Trainer) -> int | None:
    """Batches of the training loader; None where it does not tell."""
    try:
        return len(trainer.fit_loop._data_source.dataloader())
    except TypeError:
        return None


def take_up(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Let the loops of a training that is about to go on stand where its checkpoint's steps say.

    What Lightning itself keeps of its loops depends on the limits of the run that was saved: an epoch that `max_steps` cuts
    short counts as complete there.
    """
    an_epoch = steps_an_epoch(trainer)
    if not an_epoch or "loops" not in checkpoint:
        return
    del checkpoint["loops"]
    steps, fit, loop = int(checkpoint["global_step"]), trainer.fit_loop, trainer.fit_loop.epoch_loop
    at = position(steps, an_epoch)
    for epochs in (fit.epoch_progress.total, fit.epoch_progress.current):
        vars(epochs).update(ready=at.begun, started=at.begun, processed=at.ended, completed=at.ended)
    batches = loop.batch_progress
    for tracker, done in ((batches.total, steps), (batches.current, at.batches)):
        vars(tracker).update(ready=done, started=done, processed=done, completed=done)
    batches.is_last_batch = False
    optimizer = loop.manual_optimization.optim_step_progress
    for updates in (optimizer.total, optimizer.current):
        vars(updates).update(ready=steps, completed=steps)
    loop._batches_that_stepped = steps
    # with `restarting` the epoch under way goes on; the property of the fit loop would say so for every max_steps
    _Loop.restarting.fset(fit, at.begun > at.ended)  # type: ignore[attr-defined]
    fit._resuming_from_checkpoint = True  # the loader's iterator is there already


def before_epoch_cut_short(trainer: L.Trainer, act: Callable[[], None]) -> None:
    """Call `act` when training ends inside an epoch, before anybody takes it for the end of the epoch."""
    fit = trainer.fit_loop
    end_of_epoch = fit.on_advance_end

    def on_advance_end() -> None:
        if not fit.epoch_loop._num_ready_batches_reached():
            act()
        end_of_epoch()

    fit.on_advance_end = on_advance_end  # type: ignore[method-assign]
