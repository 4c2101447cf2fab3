"""The jobs of a sweep in Slurm's queue: each is submitted once, watched until it has ended, and taken back when it is asked for.

A job is what `python train.py WORDS` is elsewhere, started by submitit on every rank; what comes of it stands in its folder.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config.errors import one_line
from recipes.config.quoting import typed
from recipes.config.run_files import OUTPUT, SLURM_JOB
from recipes.config.untrusted import LARGEST_RECORD, read_bytes, read_text
from recipes.launch import failures
from recipes.launch import slurm_job as slurm
from recipes.launch.job import Job, words_of
from recipes.launch.slurm_queue import LEFT, WAITING, Queue, Submitted
from recipes.launch.sweep import Sweep
from recipes.store.files import write_text
from recipes.store.plan import Plan

Main = Callable[[Sequence[str]], None]  # the command that a job runs
ROOT = Path(__file__).resolve().parents[2]
GPU = ("gpu", "cuda")  # values of trainer.accelerator
MEANINGS = {
    "TIMEOUT": "the time limit was reached; for more type hydra.launcher.timeout_min=MINUTES",
    "OUT_OF_MEMORY": "out of memory; for more type hydra.launcher.mem_gb=GIGABYTES",
    "NODE_FAIL": "a node failed",
    "CANCELLED": "cancelled",
}


def expect_slurm() -> None:
    """Refuse to submit where that cannot be."""
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise RecipeError('hydra/launcher=slurm needs further packages: pip install -e ".[slurm]"') from None
    if shutil.which("sbatch") is None:
        raise RecipeError("hydra/launcher=slurm: there is no sbatch here; type the command on a login node of the cluster")


def request(settings: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes, processes and GPUs of a job, which follow from `trainer`; refuses settings of `hydra.launcher` that do not fit."""
    if settings["name"] in slurm.INTERACTIVE:
        raise RecipeError(
            f"hydra.launcher.name={settings['name']}: Lightning takes a job of this name for a person at work and starts no "
            f"training over several nodes; leave it out, or type hydra.launcher.name=train"
        )
    further = settings["additional_parameters"]
    if not isinstance(further, Mapping | None):
        raise RecipeError(
            f"hydra.launcher.additional_parameters must name options of sbatch, such as {{reservation: mine}}, got {further!r}"
        )
    nodes, devices = trainer["num_nodes"], trainer["devices"]
    if not isinstance(devices, int) or devices < 1:
        devices = settings["gpus_per_node"]
        if devices is None:
            raise RecipeError(
                f"trainer.devices={trainer['devices']}: how many GPUs a node has is not known here; type trainer.devices=8, or "
                f"what a node has"
            )
    for name, wanted, source in (("nodes", nodes, "num_nodes"), ("tasks_per_node", devices, "devices")):
        if settings[name] not in (None, wanted):
            raise RecipeError(
                f"hydra.launcher.{name}={settings[name]} does not fit trainer.{source}={wanted}: leave hydra.launcher.{name} "
                f"out, or type trainer=ddp trainer.{source}={settings[name]}"
            )
    gpus = settings["gpus_per_node"]
    if gpus is None and (
        trainer["accelerator"] in GPU or (trainer["accelerator"] == "auto" and has_gpus(settings["partition"]))
    ):
        gpus = devices
    if gpus and gpus < devices and trainer["accelerator"] != "cpu":
        raise RecipeError(
            f"hydra.launcher.gpus_per_node={gpus} is less than trainer.devices={devices}: leave hydra.launcher.gpus_per_node "
            f"out, or type trainer.devices={gpus}"
        )
    return {"nodes": nodes, "tasks_per_node": devices, **({"gpus_per_node": gpus} if gpus else {})}


@cache
def has_gpus(partition: str | None) -> bool:
    """Whether Slurm gives out GPUs there."""
    words = ["sinfo", "--noheader", "--format=%G", *([f"--partition={partition}"] if partition else [])]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "gpu" in done.stdout


class Train:
    """What submitit starts on every rank: `main` with the words, as `python SCRIPT WORDS` does."""

    def __init__(self, main: Main, script: str, words: Sequence[str]) -> None:
        self.main, self.script, self.words = main, script, list(words)

    def __call__(self) -> None:
        """Run it in this process."""
        back = signal.getsignal(signal.SIGUSR2)  # submitit's way into the queue, of which it keeps count
        assert callable(back)
        slurm.listen()
        slurm.requeue = lambda: _requeue(back)
        sys.argv[0] = self.script
        try:
            self.main(self.words)
        except SystemExit as ended:
            failures.end(ended.code if isinstance(ended.code, int) else 1)  # submitit would take some codes for a success

    def checkpoint(self) -> Any:
        """What is started when the job comes back: the same; a run knows where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _requeue(back: Any) -> None:
    from submitit.core.utils import UncompletedJobError

    try:
        back(signal.SIGUSR2, None)
    except UncompletedJobError as error:
        raise RecipeError(f"{error} see hydra.launcher.max_num_timeout") from None
    except (OSError, subprocess.SubprocessError) as error:  # of scontrol
        raise RecipeError(f"the job could not be put back into the queue: {one_line(error)}") from None


class SlurmSweep(Sweep):
    """A sweep whose jobs Slurm runs.

    Args:
        folder, plan, command: as of :class:`Sweep`.
        settings: those of `hydra.launcher`.
        main: the command that each job runs with its words.
    """

    END = signal.SIGINT  # whatever else is sent lets it go on there

    def __init__(self, folder: Path, plan: Plan, command: Sequence[str], settings: Mapping[str, Any], main: Main) -> None:
        expect_slurm()
        jobs = settings["n_jobs"]
        super().__init__(folder, plan, command, n_jobs=1 if jobs == -1 else jobs)
        self._room = None
        self.gpus, self.n_jobs = [], sys.maxsize if jobs == -1 else jobs
        self.settings, self.queue, self.main = dict(settings), Queue(), main

    def _next(self, waiting: list[Job]) -> Job | None:
        return waiting.pop(0) if waiting else None  # one that is in the queue already is watched

    def _launch(self, job: Job, gpus: Sequence[str]) -> Submitted:
        path = job.folder / SLURM_JOB
        with suppress(FileNotFoundError):
            number = read_text(path).strip()
            if number.isdecimal() and self.queue.state(number) in WAITING:
                self.say(f"{job.name}  is Slurm job {number} already")
                return Submitted(self.queue, number, job)
        words = words_of(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        failures.forget_errors(job.folder)
        (job.folder / OUTPUT).unlink(missing_ok=True)
        number = self._submit(job, words)
        try:
            write_text(path, f"{number}\n")
        except RecipeError:  # nobody would know that it is in the queue
            Submitted(self.queue, number, job).send(signal.SIGINT)
            raise
        self.queue.states[number] = "PENDING"
        self.say(f"{job.name}  is Slurm job {number}; log {job.folder / OUTPUT}")
        return Submitted(self.queue, number, job)

    def _submit(self, job: Job, words: Sequence[str]) -> str:
        import submitit

        settings = {name: value for name, value in self.settings.items() if value is not None} | job.request
        for ours in ("n_jobs", "submitit_folder", "max_num_timeout", "additional_parameters", "setup"):
            settings.pop(ours, None)
        log = str((job.folder / OUTPUT).absolute()).replace("%", "%%")
        # one log for all ranks and for srun itself, which tells who was killed
        further = {"output": log, "requeue": True, **(self.settings["additional_parameters"] or {})}
        processes = job.request["nodes"] * job.request["tasks_per_node"]
        here = f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"
        common = ("timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb", "name")
        executor = submitit.AutoExecutor(
            self.settings["submitit_folder"], cluster="slurm", slurm_max_num_timeout=self.settings["max_num_timeout"]
        )
        executor.update_parameters(
            **{name if name in common else f"slurm_{name}": value for name, value in settings.items()},
            stderr_to_stdout=True,
            slurm_setup=[here, *(self.settings["setup"] or [])],
            slurm_additional_parameters=further,
            slurm_srun_args=["--kill-on-bad-exit=1", f"--output={log}", *(["--label"] if processes > 1 else [])],
        )
        try:
            return str(executor.submit(Train(self.main, self.command[1], [*self.command[2:], *words])).job_id)
        except submitit.core.utils.FailedJobError as error:
            told = [line.removeprefix("sbatch: error: ") for line in str(error).splitlines() if line.startswith("sbatch:")]
            raise RecipeError(f"Slurm does not take the job: {'; '.join(told) or error}; see hydra.launcher") from None

    def _reason(self, job: Job, process: Any) -> str:
        try:
            output = read_bytes(job.folder / OUTPUT, LARGEST_RECORD).decode(errors="replace")
        except (OSError, RecipeError):
            output = ""
        if process.returncode == LEFT:
            return "goes on in Slurm"
        told = failures.first_error(job.folder, output)
        status = job.result.get("status")
        if not told and status == "failed":
            told = str(job.result.get("error", ""))
        if not told and (meaning := MEANINGS.get(process.state)):
            told = meaning
        if not told and status == "stopped":
            told = f"stopped by {job.result.get('stopped_by')}"
        if not told:
            told = job.last_line("error: ").removeprefix("error: ") or job.last_line()
        return told or f"ended without a result, state {process.state or 'unknown'}"

    def _end(self, job: Job, process: Any, stopping: bool) -> None:
        super()._end(job, process, stopping)
        if job.error and not stopping:
            job.error += f" (Slurm job {process.number}, log {job.folder / OUTPUT})"

    def _farewell(self, number: int) -> list[str]:
        if number == signal.SIGINT:
            return super()._farewell(number)
        return [f"the jobs go on in Slurm; to wait for them: python train.py -m {typed('sweep', self.folder)}"]
