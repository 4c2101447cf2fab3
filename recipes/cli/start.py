"""The start of a run in the processes that train it, and what its end means: exit code and score."""

from __future__ import annotations

import gc
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.cli.exits import FAILED, MISTAKE, exit_with
from recipes.cli.picture import leave_picture
from recipes.cli.printing import expect_printed
from recipes.config.environment import told
from recipes.config.errors import is_mistake
from recipes.launch import failures, ranks, watch
from recipes.launch import slurm_job as slurm
from recipes.launch.identity import WATCHED
from recipes.run import memory
from recipes.store.plan import sweep_of


def expect_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RecipeError(f"the output folder {folder} cannot be written; choose another one: hydra.run.dir=FOLDER")


def start(config: dict[str, Any], folder: Path, words: Sequence[str]) -> dict[str, Any]:
    if ranks.rank() == 0 and ranks.node() == 0:
        failures.forget_earlier(folder)
    is_rank = WATCHED in os.environ  # of a command that draws the picture
    slurm.listen(*(slurm.ASKING if ranks.world() > 1 else ()))
    if config["explain"] or (config["tune"] and config["resume"] is None and not sweep_of(folder)):
        slurm.listen_no_more()
    failures.end_with_others(folder)
    try:
        ranks.check_started(config["trainer"])
        if count := ranks.to_start(config):
            result = watch.train(count, config, folder, words, as_rank)
        else:
            result = _train(config, folder, words)
    except BaseException as error:
        failures.fail(folder, error, MISTAKE if is_mistake(error) else FAILED, is_mistake(error))
        raise
    if result.get("status") == "stopped" and ranks.rank() == 0 and not count:  # for all
        slurm.come_back(str(result.get("stopped_by")))
    if not is_rank and ranks.rank() == 0 and ranks.node() == 0:
        leave_picture(folder, result)
    return result


def _train(config: dict[str, Any], folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """Train in this process."""
    ranks.end_with_parent()
    with memory.told(config):
        with told():
            from recipes.run.train import train

        gc.freeze()  # it stays: looking through it takes half a second each time
        return train(config, folder, list(words))


def as_rank(arguments: dict[str, Any]) -> None:
    """Train as a fork of a warm job; ends the process with an exit code unless all went well."""
    import torch

    # torch has read it when it was loaded, for another process; "4,2" are the threads of loops and of loops inside of them
    if threads := re.match(r"\s*0*([1-9]\d*)", os.environ["OMP_NUM_THREADS"]):
        torch.set_num_threads(int(threads[1]))
    exit_with(lambda: exit_code(start(**arguments)))


def exit_code(result: dict[str, Any]) -> int:
    """0, or 1 if the run has diverged, or the code of the signal that stopped the run; 0 too if the run comes back.

    Only the first rank ends with it: the end of another one, which has less to do, would be the end of all.
    """
    if result.get("status") == "explained":
        expect_printed()
    if result.get("status") == "diverged" and not ranks.rank():
        return FAILED
    if result.get("status") != "stopped" or slurm.comes_back(str(result.get("stopped_by"))) or ranks.rank():
        return 0
    return 128 + getattr(signal, str(result.get("stopped_by")), signal.SIGINT)


def score_of(result: dict[str, Any]) -> float:
    """The metric that chose the best model; not a number where there is none, and for a run that has diverged."""
    if result.get("status") == "diverged":
        return float("nan")
    return float(result.get("metrics", {}).get(result.get("monitor"), float("nan")))
