"""Stepping learning rate schedules: in manual optimization Lightning leaves that to the module."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import lightning as L
from torch.optim.lr_scheduler import ReduceLROnPlateau

from plugins.base import RecipeError
from plugins.metric_schedule import CountsSteps

log = logging.getLogger("recipes")


def check_schedule(scheduler: object, trainer: L.Trainer) -> None:
    """Refuse one that goes by a metric and takes larger values for better ones, or gets none: it is stepped by the validation loss."""
    if not isinstance(scheduler, ReduceLROnPlateau):
        return
    if scheduler.mode != "min":
        raise RecipeError("ReduceLROnPlateau is stepped by val/loss, of which smaller is better: make it with mode='min'")
    if not trainer.enable_validation:
        raise RecipeError(
            f"{type(scheduler).__name__} is stepped by val/loss, and nothing is validated: give the training validation data, or take "
            f"another schedule"
        )


def tell_of_warmup(schedule: object, total: int) -> None:
    """Tell of a warm-up, counted in steps, behind which none of the training is left."""
    warmup = getattr(schedule, "warmup", None)
    if isinstance(warmup, int) and warmup > 1 and 0 < total <= warmup:
        log.warning(
            "scheduler.warmup=%d is no shorter than the training of %d steps: the rate rises to its end; set scheduler.warmup below that",
            warmup,
            total,
        )


def step_schedules(trainer: L.Trainer) -> None:
    """After an update: step the schedules of steps that are due and, after an epoch's last batch, those of epochs.

    These are the schedules that the trainer has now, so one that a callback puts in the place of another is stepped too.
    """
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            if isinstance(config.scheduler, CountsSteps):
                config.scheduler.count_step()
            continue  # goes by a metric
        if config.interval == "step":
            due = trainer.global_step % config.frequency == 0
        else:
            due = trainer.is_last_batch and (trainer.current_epoch + 1) % config.frequency == 0
        if due:
            config.scheduler.step()


def step_plateaus(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """After a validation: step the schedules that go by the validation loss."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler.step(metrics["val/loss"])
