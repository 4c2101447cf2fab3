"""What is private to Lightning and used here all the same: in no other file, and each with a test.

Most of it is where the loops stand, as a function of the number of steps done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch.callbacks import ModelCheckpoint
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


def loader_of(loop: Any) -> Any:
    """The loader, or the loaders, that a loop of the trainer takes its batches from, before the loop has begun."""
    return loop._data_source.dataloader()


def without_signal_handlers(trainer: L.Trainer) -> None:
    """Have a trainer leave signals alone: its handlers end a run unsaved, and talk to other ranks in the middle of anything."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def without_sigterm_broadcast(trainer: L.Trainer) -> None:
    """Have a trainer not ask all ranks after each batch whether one has been sent SIGTERM: they agree in their own way."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def saves_after_validation(callback: ModelCheckpoint) -> bool:
    """Whether a callback of Lightning's saves what the model has once a validation is over, and not at the end of an epoch."""
    return callback._save_on_train_epoch_end is not False


def is_attached(module: L.LightningModule) -> bool:
    """Whether a module has a trainer."""
    return module._trainer is not None


def move_state(optimizers: list[Any], device: Any) -> None:
    """Move the state of optimizers to a device."""
    _optimizers_to_device(optimizers, device)


def steps_an_epoch(trainer: L.Trainer) -> int | None:
    """Batches of the training loader; None where it does not tell."""
    try:
        return len(loader_of(trainer.fit_loop))
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
