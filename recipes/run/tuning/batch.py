"""The batch size from which on samples go through a training no faster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch

from plugins.errors import RecipeError
from recipes.config.errors import out_of_memory
from recipes.data.base import Data
from recipes.data.memory import available
from recipes.run.provenance import peak_memory
from recipes.run.tuning.short import short_training

SMALLEST = 8
FIRST, STEPS = 3, 8  # steps that are not timed, and those that are
LONGEST = 20.0  # seconds that the steps of a size may take for a larger one to be tried
FAST_ENOUGH = 0.9  # of the largest samples per second


class Measured(NamedTuple):
    """A batch size, the samples a second that it makes, and the most bytes that were in use."""

    size: int
    speed: float
    memory: int


def suggested(found: Sequence[Measured]) -> int:
    """The smallest size that is nearly as fast as the fastest."""
    fastest = max(each.speed for each in found)
    return min(each.size for each in found if each.speed >= FAST_ENOUGH * fastest)


class Clock(L.Callback):
    """The seconds of the steps after the first ones."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """Start, and look."""
        if trainer.global_step in (FIRST, FIRST + STEPS):
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize()
            self.began, self.seconds = time.perf_counter(), time.perf_counter() - self.began


def find_batch_size(config: Mapping[str, Any], folder: Path, data: Data, world: int) -> tuple[int, list[Measured]]:
    """A batch size for what a config describes, and what was measured: sizes are doubled until memory, time or samples end.

    Args:
        config: of the run.
        folder: of the run; nothing is written there.
        data: set up.
        world: processes that train together; one only.

    Raises:
        RecipeError: there are several processes, or not one size fits.
    """
    if world > 1:
        raise RecipeError("tune=batch_size measures a single process: type it without trainer=ddp or trainer=fsdp")
    found = list(_measured(config, folder, data))
    if not found:
        raise RecipeError(f"tune=batch_size: not even {SMALLEST} samples fit into memory; take a smaller model")
    return suggested(found), found


def _measured(config: Mapping[str, Any], folder: Path, data: Data) -> Iterator[Measured]:
    size = SMALLEST
    while size * config["trainer"]["accumulate_grad_batches"] <= len(data.splits["train"]):
        try:
            measured, seconds = _measure(config, folder, data, size)
        except Exception as error:
            if out_of_memory(error) is None:
                raise
            return
        yield measured
        size *= 2
        if 2 * seconds > LONGEST or (not torch.cuda.is_available() and measured.memory > available()):
            return


def _measure(config: Mapping[str, Any], folder: Path, data: Data, size: int) -> tuple[Measured, float]:
    clock = Clock()
    loader = short_training(config, folder, data, clock, FIRST + STEPS, batch_size=size)
    return Measured(size, STEPS * loader.step_size / clock.seconds, peak_memory(loader.device)), clock.seconds
