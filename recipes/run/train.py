"""A resolved config is trained: what cannot be right is told first, then a run trains in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console

from recipes.config.run_files import CHECKPOINTS, LAST, LOG
from recipes.data.loaders import StepLoader
from recipes.launch.ranks import is_first_rank
from recipes.run.build import build_callbacks, build_data, build_plugins, count_parameters, make_module, prepare_loggers
from recipes.run.explain import explain
from recipes.run.limits import goes_further, told_finished
from recipes.run.logs import log_to
from recipes.run.monitor import check_monitors
from recipes.run.preflight import build_early_objects, check_devices, expect_not_diverged, world_size
from recipes.run.pretrained import expect_weights_kept
from recipes.run.process import set_up_process
from recipes.run.resume import resume_command
from recipes.run.run import Run
from recipes.run.terminal import history_lines, print_lines, table
from recipes.run.trainer import make_trainer
from recipes.run.tuning.suggest import suggest, tuned
from recipes.store.claim import expect_unclaimed
from recipes.store.files import hold
from recipes.store.folder import read_result
from recipes.store.plan import sweep_of

SMALL_MODEL = 100_000  # parameters


def train(config: dict[str, Any], folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Train what a resolved config describes and leave the result in `folder`; goes on with it where `resume` is set.

    Returns what `result.json` holds. Raises :class:`RecipeError` for the user's mistakes.
    """
    console = Console(quiet=not is_first_rank())
    resumed, replaces = config["resume"] is not None, config["overwrite"]
    config = {**config, "resume": None, "overwrite": False}
    earlier = read_result(folder) if resumed else {}
    if earlier.get("status") == "finished" and not goes_further(config, earlier):
        console.print(table(earlier))
        print_lines(console, *history_lines(earlier), *told_finished(earlier, folder, overrides, lambda: build_plugins(config)))
        return earlier
    expect_not_diverged(config, earlier, folder)
    plugins = build_plugins(config)  # bad values are told before any data is touched
    expect_weights_kept(config, plugins)
    callbacks = build_callbacks(config)
    build_early_objects(config)
    if not config["explain"] and (not config["tune"] or sweep_of(folder)):
        prepare_loggers(config)
    set_up_process(config)
    data = build_data(config)
    data.setup()
    check_devices(config["trainer"])
    world = world_size(config["trainer"])
    restored = resumed and (folder / CHECKPOINTS / LAST).exists()
    module = make_module(config, data, plugins, world, restored)  # so are wrong combinations
    if config["trainer"]["num_threads"] is None and count_parameters(module) < SMALL_MODEL:
        torch.set_num_threads(1)  # several threads wait for each other longer than a small model takes
    StepLoader(data.splits["train"], data.batch_size, config["seed"], module.parts, world=world)
    make_trainer(config, folder, [], [*plugins, *callbacks])
    check_monitors(
        config,
        data,
        module.plugins,
        lambda other: make_module(other, data, build_plugins(other), restored=True),
        lambda other, callbacks: make_trainer(other, folder, [], callbacks),
    )
    if config["explain"]:
        explain(console, config, data, module, world)
        if resumed:
            with log_to(folder) as journal:
                Run(config, folder, data, console, earlier, resume_command(earlier, overrides), module, journal).explain()
        return {"status": "explained"}
    command = resume_command(earlier, overrides)
    if config["tune"] and not resumed and not sweep_of(folder):
        suggest(console, config, folder, data, world, command)
        return {"status": "explained"}
    with hold_folder(folder), log_to(folder) as journal:
        if not resumed and not replaces and is_first_rank():
            expect_unclaimed(folder)
        found: dict[str, Any] = earlier.get("tuned", {})
        if config["tune"] and not resumed:
            config, found = tuned(config, folder, data, world)
            module = make_module(config, data, build_plugins(config), world)
        result = Run(config, folder, data, console, earlier, command, module, journal, replaces, found).go(resumed)
    if dist.is_initialized():
        dist.destroy_process_group()  # its threads would end the process with an abort
    return result


def hold_folder(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes out of a run's folder until this one ends; the first rank does so for all."""
    return hold(folder / LOG, f"trains in {folder}") if is_first_rank() else nullcontext()
