"""Hydra's launchers for the jobs of a sweep: a process of its own for each, here, in Slurm's queue or where Ray has room.

Hydra finds its plugins in packages of this name only, and imports them in every application of the environment. So nothing is
registered here: `recipes/config/launchers.py` does that for our own commands.
"""

import os
import re
import sys
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from recipes.config.run_files import SWEEP_LOG

NUMBER = re.compile(r"\$\{hydra[:.]job\.(num|id)\}")


class ProcessesLauncher(Launcher):
    """Runs each job of a sweep as `python train.py WORDS`, `n_jobs` at a time, with GPUs dealt out."""

    def __init__(self, n_jobs: int = 1, jobs_per_gpu: int = 1, start: str = "warm") -> None:
        self.n_jobs = -1 if jobs_per_gpu > 1 and n_jobs == 1 else n_jobs
        self.jobs_per_gpu, self.start = jobs_per_gpu, start

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's call before the first batch of jobs."""
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; returns their scores, None for those that failed."""
        setup_globals()
        sweep = self._current()
        try:
            jobs = [sweep.make(initial_job_idx + index, list(words)) for index, words in enumerate(job_overrides)]
        except Exception:
            self._remove()
            raise
        sweep.run(jobs)
        returns = []
        for job in jobs:
            done = JobReturn(overrides=job.words, working_dir=str(job.folder), status=JobStatus.COMPLETED)
            done.return_value = job.score
            returns.append(done)
        return returns

    def search(self, words: Sequence[str]) -> None:
        """Run the jobs of a search over what some words span."""
        from recipes.compare.rulers import Alike
        from recipes.launch import searching

        setup_globals()
        sweep = self._current()
        try:
            search = searching.search_of(self.config.hydra, as_words(words), sweep)
            search.expect = Alike(search.objectives).expect
            sweep.work(search)
            if search.refused:
                raise search.refused
        except Exception:
            self._remove()  # unless there is a job
            raise
        if search.ended_early:
            sweep.say(search.ended_early)
        again = search.again()
        searching.write_repeated(search, sweep.folder)
        sweep.run(again)
        if sweep.plan.jobs:  # else all was only explained
            searching.write_found(search, sweep.folder)

    def _current(self) -> Any:
        """The sweep of this process."""
        from recipes.launch import sweep

        if sweep.current is None:
            try:
                sweep.current = self._sweep(Path(str(self.config.hydra.sweep.dir)))
                sweep.current.make = partial(self._job, sweep.current)
            except Exception:
                self._remove()
                raise
        return sweep.current

    def _remove(self) -> None:
        """Take away what Hydra has written of a sweep that nothing came of."""
        from recipes.launch import sweep
        from recipes.store import plan
        from recipes.store.files import is_held

        folder = Path(str(self.config.hydra.sweep.dir))
        if sweep.current is not None or not is_held(folder / SWEEP_LOG):
            plan.remove_sweep(folder)

    def _sweep(self, folder: Path) -> Any:
        from recipes.store.plan import Plan

        settings = self.config.hydra
        words = [word for word in self._words("hydra") if not word.startswith(("hydra.mode=", "hydra.sweep.dir="))]
        config_dir = next((str(s.path) for s in settings.runtime.config_sources if s.provider == "command-line"), None)
        plan = Plan(self._words("task"), words, config_dir)
        command = [sys.executable, sys.argv[0], *([f"--config-dir={config_dir}"] if config_dir else [])]
        command += [word for word in words if word.startswith("hydra.searchpath=")]
        return self._new_sweep(folder, plan, command)

    def _new_sweep(self, folder: Path, plan: Any, command: list[str]) -> Any:
        from recipes.launch.sweep import Sweep

        return Sweep(folder, plan, command, self.n_jobs, self.start, self.jobs_per_gpu)

    def _request(self, trainer: Any) -> dict[str, Any]:
        """What a job asks a cluster for."""
        return {}

    def _words(self, kind: str) -> list[str]:
        """The words of the command line, those with a reference to a job's number as they stand."""
        from recipes.config.composing import as_given

        words: Any = OmegaConf.to_container(self.config.hydra.overrides[kind], resolve=False)
        return as_given(words)

    def _job(self, sweep: Any, number: int, words: list[str]) -> Any:
        from plugins.errors import RecipeError
        from recipes.config.catalogue import Catalogue
        from recipes.config.composing import words_of_job
        from recipes.config.handed import composed_for, handed_over
        from recipes.config.searching import searched_folders
        from recipes.launch.job import Job, words_to_begin
        from recipes.store.plan import expect_inside

        catalogue = Catalogue(searched_folders(self.config.hydra.runtime.config_sources))
        words = words_of_job(catalogue, words)
        subdir = os.path.normpath(self._subdir(number, words))
        expect_inside(sweep.folder, subdir)
        name, new = sweep.plan.folder_for(words, subdir)
        folder = sweep.folder / name
        if new and folder.exists():
            raise RecipeError(f"{folder} is there already, and is no job of the sweep; move it away, or choose another folder")
        begins = [
            *(word for word in sweep.command if word.startswith("hydra.searchpath=")),
            *words_to_begin(words, folder, number),
        ]
        checked = composed_for(catalogue, begins)
        config = checked.config if checked else self._config(number, words)
        HydraConfig.instance().set_config(config)  # a value may refer to it
        trainer = config.trainer
        devices = trainer.devices if isinstance(trainer.devices, int) and trainer.devices > 0 else None
        shown = " ".join(word for word in words if word.partition("=")[0] in self._swept)
        job = Job(number, folder, words, shown, devices, composed=handed_over(begins, checked))
        job.request = self._request(trainer)
        return job

    def _subdir(self, number: int, words: list[str]) -> str:
        """Where a job's folder is in the sweep's; most often its number, for which no config is composed."""
        written = str(OmegaConf.to_container(self.config.hydra.sweep, resolve=False)["subdir"])  # type: ignore[call-overload,index]
        written = NUMBER.sub(str(number), written)
        return str(self._config(number, words).hydra.sweep.subdir) if "$" in written else written

    def _config(self, number: int, words: list[str]) -> DictConfig:
        """What Hydra makes of a job's words and of the sweep's own."""
        from recipes.config.composing import forced

        config = self.context.config_loader.load_sweep_config(self.config, forced(words))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(config)  # a value may refer to it
        return config

    @cached_property
    def _swept(self) -> set[str]:
        """The keys of the words that sweep over several values."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        return {each.get_key_element() for each in parser.parse_overrides(self._words("task")) if each.is_sweep_override()}


def as_words(words: Sequence[str]) -> list[str]:
    """Words that Hydra was handed, as they were before."""
    from recipes.config.composing import as_given

    return as_given(words)


class OptunaSweeper(Sweeper):
    """Searches what `hydra/sweeper=optuna` spans: our launchers train the trials, one after the other is chosen by Optuna."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's call before the search."""
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search."""
        assert isinstance(self.launcher, ProcessesLauncher)
        self.launcher.search(arguments)


class ClusterLauncher(ProcessesLauncher):
    """Leaves it to a cluster where and when each job runs."""

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for name, value in settings.items()
        }


class SlurmLauncher(ClusterLauncher):
    """Submits each job of a sweep to Slurm, and waits for all of them."""

    def _new_sweep(self, folder: Path, plan: Any, command: list[str]) -> Any:
        from recipes.cli.train import main
        from recipes.launch.slurm_sweep import SlurmSweep

        return SlurmSweep(folder, plan, command, self.settings, main)

    def _request(self, trainer: Any) -> dict[str, Any]:
        from recipes.launch.slurm_sweep import request

        return request(self.settings, dict(trainer))


class RayLauncher(ClusterLauncher):
    """Has Ray run each job of a sweep."""

    def _new_sweep(self, folder: Path, plan: Any, command: list[str]) -> Any:
        from recipes.launch.ray_sweep import RaySweep

        return RaySweep(folder, plan, command, self.settings)

    def _request(self, trainer: Any) -> dict[str, Any]:
        from recipes.launch.ray_sweep import request

        return request(self.settings, dict(trainer))
