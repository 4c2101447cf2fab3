"""A short training of what a config describes, with all techniques but those that would end it, of which nothing is left."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.seed import isolate_rng
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from recipes.data.base import Data
from recipes.data.loaders import StepLoader
from recipes.engine.module import RecipeModule
from recipes.run.build import build_plugins, make_module
from recipes.run.trainer import make_trainer

log = logging.getLogger("recipes")

WITHOUT = ("stopping", "guard")  # groups that would end it, or undo what is to be seen


def short_training(
    config: Mapping[str, Any],
    folder: Path,
    data: Data,
    watch: L.Callback,
    steps: int,
    world: int = 1,
    batch_size: int | str | None = None,
    schedule: Callable[[Optimizer, int], LRScheduler] | None = None,
) -> StepLoader:
    """Train, and leave random numbers as they were; the loader that was trained from.

    Args:
        config: of the run.
        folder: of the run; nothing is written there.
        data: set up.
        watch: is told of each step.
        steps: of the optimizer.
        world: processes that train together.
        batch_size: in place of the config's.
        schedule: in place of the config's.
    """
    with isolate_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no `val_dataloader`")
        module = make_module(config, data, [each for each in build_plugins(config) if each.group not in WITHOUT], world)
        if schedule is not None or getattr(module.make_scheduler, "goes_by_validation", False):  # nothing is validated
            module.make_scheduler = schedule
        # one that saves nothing, or Lightning would take its own
        trainer = make_trainer(config, folder, [], [*module.plugins, watch, Checkpoint()], max_steps=steps)
        loader = _loader(config, data, module, batch_size, world)
        loader.device = trainer.strategy.root_device
        if loader.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        log.addFilter(_tells_of_a_whole_training)
        try:
            trainer.fit(module, loader)
        finally:
            log.removeFilter(_tells_of_a_whole_training)
            if loader.device.type == "cuda":
                torch.cuda.empty_cache()
    return loader


def _tells_of_a_whole_training(record: logging.LogRecord) -> bool:
    return "warmup" not in str(record.msg)  # which is longer than this one


def _loader(config: Mapping[str, Any], data: Data, module: RecipeModule, size: int | str | None, world: int) -> StepLoader:
    train, size = data.splits["train"], size or data.batch_size
    return StepLoader(train, size, config["seed"], module.parts, world=world)
