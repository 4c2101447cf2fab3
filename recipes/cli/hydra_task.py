"""A checked run is started in the folder that Hydra makes; Hydra spreads a sweep into jobs, which are compared at its end."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugins.errors import RecipeError
from recipes.cli.exits import FAILED
from recipes.cli.printing import expect_printed
from recipes.cli.start import exit_code, expect_writable, score_of, start
from recipes.config.catalogue import FOLDER, Catalogue
from recipes.config.errors import one_line
from recipes.config.invoked import as_typed
from recipes.config.quoting import typed
from recipes.launch import slurm_job as slurm
from recipes.launch.identity import here
from recipes.store.files import remove_empty

if TYPE_CHECKING:
    from recipes.config.composing import Checked
    from recipes.launch.sweep import Sweep


@cache
def run_id() -> str:
    """What keeps apart the folders of runs that start in the same second."""
    return secrets.token_hex(3)


@dataclass
class Outcome:
    """What came of the task that Hydra called; Hydra itself would print an exception its own way."""

    error: BaseException | None = None
    code: int = 0
    started: bool = False


outcome = Outcome()


def run_once(flags: argparse.Namespace, checked: Checked) -> int:
    """Train in the folder that Hydra makes, with its callbacks, as `hydra.main` does: that would compose the config twice more."""
    from hydra import initialize_config_dir
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import run_job
    from hydra.types import HydraContext, RunMode
    from omegaconf import read_write

    config = checked.config
    with read_write(config.hydra):
        config.hydra.mode = RunMode.RUN
    with _as_typed(flags, checked.words), initialize_config_dir(str(FOLDER), job_name="train", version_base="1.3"):
        context = HydraContext(GlobalHydra.instance().config_loader(), callbacks := Callbacks(config))
        callbacks.on_run_start(config=config, config_name="train")
        done = run_job(task, config, "hydra.run.dir", None, context)
        callbacks.on_run_end(config=config, config_name="train", job_return=done)
    return outcome.code


def run_hydra(flags: argparse.Namespace, words: Sequence[str]) -> int:
    """Hand checked words to Hydra, which shows a config, or spreads a sweep into the jobs of a launcher."""
    import hydra

    with _as_typed(flags, words):
        hydra.main(config_path=str(FOLDER), config_name="train", version_base="1.3")(task)()
    if flags.cfg or flags.info or flags.shell_completion:
        expect_printed()
    return end_sweep(sweep, flags.all_jobs) if (sweep := _sweep()) else outcome.code


@contextmanager
def _as_typed(flags: argparse.Namespace, words: Sequence[str]) -> Iterator[None]:
    """What Hydra and Lightning look for around a command: its words, and that errors come here."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.register_new_resolver("run_id", run_id, replace=True)
    passed_on = ["--multirun"] * flags.multirun + ["--resolve"] * flags.resolve + ["--run"] * flags.run
    for name in ("cfg", "info", "package", "config_dir"):
        if value := getattr(flags, name):
            passed_on += [f"--{name.replace('_', '-')}", value]
    for name in ("hydra_help", "shell_completion"):
        passed_on += [f"--{name.replace('_', '-')}"] * getattr(flags, name)
    sys.argv[1:] = [*passed_on, *words]  # where Lightning, too, looks for the command of its further processes
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here instead of being printed
    outcome.__init__()  # type: ignore[misc]
    try:
        yield
    except OSError as error:
        if outcome.started:
            raise
        raise RecipeError(f"the output folder cannot be written: {error.strerror}: {error.filename}") from None
    except RecipeError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        sweep = _sweep()
        if outcome.started or (sweep and any(job.score is not None for job in sweep.jobs)):
            raise
        if not sweep or not sweep.jobs:  # what Hydra, its sweeper or its launcher do not take, before the first job
            raise RecipeError(one_line(error.__cause__ or error)) from None
        # else Optuna's end of a search in which no job has a score
    if outcome.error is not None:
        raise outcome.error


def _sweep() -> Sweep | None:
    """The sweep that this process has run."""
    from recipes.launch import sweep

    return sweep.current


def end_sweep(sweep: Sweep, all_jobs: bool) -> int:
    """Compare the runs of a sweep, and say which failed; `all_jobs`: those of earlier starts are run first."""
    from recipes.launch.search import best_of_search
    from recipes.store.plan import remove_sweep

    if all_jobs:
        sweep.run_rest()
    remove_sweep(sweep.folder)  # if all was explained, and nothing trained
    code = 0
    if any(job.result.get("status") == "finished" for job in sweep.jobs):
        from recipes.compare.present import present

        try:
            present([sweep.folder], sweep.folder)
        except RecipeError as error:  # such as a full disk
            print(f"error: {one_line(error)}", file=sys.stderr)
            code = FAILED
        if best := best_of_search(sweep.folder):
            print(f"best     {best}")
    if sweep.diverged:
        lines = "\n".join(f"  {job.name}: {job.result.get('error')}; {job.folder}" for job in sweep.diverged)
        print(f"{len(sweep.diverged)} of {len(sweep.jobs)} jobs diverged:\n{lines}", file=sys.stderr)
        if not any(job.result.get("status") == "finished" for job in sweep.jobs):
            code = FAILED
    if not sweep.failed:
        return code
    failed = "\n".join(f"  {job.name}: {job.error}; {job.folder}" for job in sweep.failed)
    print(f"error: {len(sweep.failed)} of {len(sweep.jobs)} jobs failed:\n{failed}", file=sys.stderr)
    print(as_typed(f"to run them again: python train.py -m {typed('sweep', sweep.folder)}"), file=sys.stderr)
    return FAILED


def task(config: Any) -> float | None:
    """What Hydra calls for a run; returns the metric that chose the best model."""
    from hydra.core.hydra_config import HydraConfig

    from recipes.config.composing import as_given, finish
    from recipes.config.searching import searched_folders
    from recipes.store.plan import sweep_of

    settings = HydraConfig.get()
    folder, words = Path(settings.runtime.output_dir), as_given(settings.overrides.task)
    outcome.started = True
    try:
        expect_writable(folder)
        catalogue = Catalogue(searched_folders(settings.runtime.config_sources))
        plain = finish(catalogue, config, words)
        if not plain["explain"] and (not plain["tune"] or sweep_of(folder)):
            plain = _claimed(catalogue, plain, folder, words)
        result = start(plain, folder, words)
    except BaseException as error:
        remove_empty(folder)
        outcome.error = error
        return None
    remove_empty(folder)
    outcome.code = exit_code(result)
    return score_of(result)


def _claimed(catalogue: Catalogue, config: dict[str, Any], folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """The config of a run in a folder that it may have: that of the run which is in it where it goes on with that."""
    from recipes.config.changing import read_run
    from recipes.config.own import expect_unchanged
    from recipes.launch.job import can_go_on
    from recipes.store.claim import Claim, claim
    from recipes.store.plan import is_job

    number = job.number if (job := here().job) else ""
    found = claim(folder, words, config["overwrite"], slurm.restarts() > 0, is_job(folder, words), number)
    if found == Claim.GO_ON and can_go_on(folder):
        earlier = read_run(catalogue, folder)
        expect_unchanged(earlier, folder)
        return earlier | {"resume": str(folder)}
    return {**config, "overwrite": found != Claim.NEW}  # also what was killed before there was something to go on with
