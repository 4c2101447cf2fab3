"""What cannot be right is told before data is read or a device is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plugins.base import MODES, expect, expect_choice, expect_count
from plugins.errors import RecipeError
from recipes.launch import ranks
from recipes.run.build import build_loss, build_optimizer
from recipes.run.classes import find_class, instantiate
from recipes.store.folder import command_line


def expect_not_diverged(config: Mapping[str, Any], earlier: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run that has diverged: it would diverge again, unless in another precision."""
    if earlier.get("status") != "diverged" or config["trainer"]["precision"] != earlier["config"]["trainer"]["precision"]:
        return
    rate = config["optimizer"].get("lr")
    lower = (
        [f"optimizer.lr={rate / 10:g}"] if isinstance(rate, int | float) and not isinstance(rate, bool) else ["+clipping=norm"]
    )
    words = [word for word in earlier.get("command", []) if not word.startswith(("optimizer.lr=", "hydra.run.dir="))]
    raise RecipeError(
        f"{folder} has diverged at step {earlier.get('steps', 0)} and would diverge again: start a new run with other words, such "
        f"as {command_line([*words, *lower])}"
    )


def build_early_objects(config: Mapping[str, Any]) -> None:
    """Try everything that needs no data, so that a bad value is told before data is read."""
    find_class(str(config["model"]["_target_"]), nn.Module)
    build_loss(config)
    build_optimizer(config)
    try:
        instantiate(config["scheduler"])
    except RecipeError as error:
        raise RecipeError(f"scheduler: {error}") from None
    trainer = config["trainer"]
    for name in ("accumulate_grad_batches", "log_every_n_steps", "num_nodes"):
        expect_count(f"trainer.{name}", trainer[name])
    expect_count("trainer.save_every_n_steps", trainer["save_every_n_steps"], 0)
    for name in ("val_every_n_steps", "num_threads"):
        if trainer[name] is not None:
            expect_count(f"trainer.{name}", trainer[name])
    expect_choice("trainer.mode", trainer.get("mode"), (*MODES, None))
    expect(isinstance(trainer["monitor"], str | None), "trainer.monitor", "the name of a metric", trainer["monitor"])
    if config["max_epochs"] < 1 or config["max_steps"] < -1:
        raise RecipeError("max_epochs must be ≥ 1 and max_steps ≥ 0 (or -1 for no limit)")


def world_size(trainer: Mapping[str, Any]) -> int:
    """The number of processes that train together."""
    return int(ranks.devices_here(trainer) * trainer["num_nodes"])


def check_devices(trainer: Mapping[str, Any]) -> None:
    """Refuse a device that is not there."""
    wanted, count = trainer["accelerator"], trainer["devices"]
    there = {
        "gpu": torch.cuda.device_count() or int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if wanted in there and not there[wanted]:
        raise RecipeError(
            f"trainer.accelerator={wanted}: this machine has none that torch can use; type trainer.accelerator=cpu or auto"
        )
    if wanted not in {*there, "auto", "cpu", "tpu"}:
        raise RecipeError(f"trainer.accelerator must be auto, cpu, gpu, cuda, mps or tpu, got {wanted!r}")
    if trainer["sync_batchnorm"] and (wanted in ("cpu", "mps") or not there["cuda"]):
        raise RecipeError(
            "trainer.sync_batchnorm=true: torch joins the samples of CUDA GPUs only; leave it out, or take larger batches"
        )
    number = count if isinstance(count, int) else len(count) if isinstance(count, list) else 1
    if number < 1 and count not in (-1, "auto"):
        raise RecipeError(f"trainer.devices must be a whole number ≥ 1 or auto, got {count!r}")
    gpus = torch.cuda.device_count()
    if count == -1 and (wanted == "cpu" or (wanted == "auto" and not gpus)):
        raise RecipeError(
            "trainer.devices=-1 means all GPUs, and there is none; for processes on the CPU type trainer.devices=2"
        )
    if any(way in str(trainer["strategy"]) for way in ("spawn", "fork", "notebook")):
        raise RecipeError(
            f"trainer.strategy={trainer['strategy']} would train in processes of which nothing comes back: type trainer=ddp"
        )
    if wanted in ("gpu", "cuda", "auto") and gpus and number > gpus:
        raise RecipeError(f"trainer.devices={count}: this machine has {gpus}; type trainer.devices={gpus} or less")
