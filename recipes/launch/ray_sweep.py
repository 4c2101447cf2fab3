"""The jobs of a sweep on a Ray cluster, or on one of its own: each a process on the machine that Ray has chosen for it.

A job is what it is elsewhere, `python train.py WORDS` in a process of its own. Ray's own worker processes train nothing: they serve
several jobs one after another, and Lightning could start no further ranks from them. Ray chooses the machine, deals out its CPU
cores and GPUs, and holds a worker for as long as the job lives, which starts the job and hands it signals.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config.errors import one_line
from recipes.config.run_files import RESULT
from recipes.config.untrusted import read_text
from recipes.launch.failures import LATE
from recipes.launch.job import Job, LocalProcess, start_job, words_of
from recipes.launch.slurm_sweep import GPU
from recipes.launch.sweep import Sweep
from recipes.store.plan import Plan

PATIENCE = 10.0  # seconds for a cluster's first machine to answer
STORE = 100 * 2**20  # bytes for Ray's objects, of which a sweep has next to none
# Ray would kill a job together with its worker; the job notices that the worker is gone, saves its state and ends
SAVES = {"RAY_kill_child_processes_on_worker_exit": "0"}


def address(settings: Mapping[str, Any]) -> str:
    """The cluster to use; "local": one that begins and ends with the sweep."""
    return settings["ray"]["init"]["address"] or os.environ.get("RAY_ADDRESS") or "local"


def connect(settings: Mapping[str, Any]) -> None:
    """Connect to the cluster, or start one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    try:
        import ray
    except ImportError:
        raise RecipeError('hydra/launcher=ray needs a further package: pip install -e ".[ray]"') from None
    if ray.is_initialized():
        return
    place = address(settings)
    wanted = {name: value for name, value in settings["ray"]["init"].items() if value is not None} | {"address": place}
    if place == "local":
        wanted |= {"include_dashboard": False, "object_store_memory": STORE}
    try:
        if found := re.fullmatch(r"([\w.-]+):(\d+)", place):  # Ray itself would try for minutes
            socket.create_connection((found[1], int(found[2])), timeout=PATIENCE).close()
        ray.init(**wanted, runtime_env={"env_vars": SAVES}, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        hint = "; `ray start --head` starts a cluster, hydra.launcher.ray.init.address=local needs none"
        hint = hint if isinstance(error, OSError) else ""
        raise RecipeError(f"Ray, {place}: {one_line(error).rstrip('.')}{hint}") from None


def request(settings: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """What a job asks Ray for, which follows from `trainer` where `hydra.launcher.ray.remote` says nothing else."""
    asked = {name: value for name, value in settings["ray"]["remote"].items() if value is not None}
    if trainer["num_nodes"] > 1:
        raise RecipeError(
            f"hydra/launcher=ray trains each job on one machine, and trainer.num_nodes={trainer['num_nodes']}: leave it out, or "
            f"type hydra/launcher=slurm on a cluster with Slurm"
        )
    further = asked.get("resources", {})
    if not isinstance(further, Mapping) or not all(isinstance(number, int | float) for number in further.values()):
        raise RecipeError(f"hydra.launcher.ray.remote.resources: expected numbers by name, such as {{disk: 1}}, got {further}")
    devices, gpus = trainer["devices"], asked.get("num_gpus")
    if not isinstance(devices, int) or devices < 1:
        if not gpus:
            raise RecipeError(
                f"trainer.devices={devices}: how many GPUs a machine of the cluster has is not known here; type trainer.devices=8, "
                f"or what a machine has"
            )
        devices = max(1, int(gpus))
    connect(settings)
    import ray

    on_gpus = trainer["accelerator"] in GPU or (trainer["accelerator"] == "auto" and bool(ray.cluster_resources().get("GPU")))
    if on_gpus and gpus and gpus < devices > 1:
        raise RecipeError(
            f"hydra.launcher.ray.remote.num_gpus={gpus:g} is less than trainer.devices={devices}: leave it out, or type "
            f"trainer.devices={max(1, int(gpus))}"
        )
    asked = {"num_cpus": devices, "num_gpus": devices if on_gpus else 0} | asked
    if address(settings) == "local" and (missing := shortage(asked)):
        raise RecipeError(f"{missing}; another number for it: hydra.launcher.ray.init.num_cpus=N, or num_gpus=N")
    return asked


def shortage(asked: Mapping[str, Any]) -> str:
    """In a line, that no machine of the cluster has what a job asks for; empty if one has."""
    import ray

    wanted = {
        "CPU": asked["num_cpus"],
        "GPU": asked["num_gpus"],
        "memory": asked.get("memory", 0),
        **asked.get("resources", {}),
    }
    machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
    if any(all(has.get(name, 0) >= number for name, number in wanted.items()) for has in machines):
        return ""
    most = {name: max((has.get(name, 0) for has in machines), default=0) for name in wanted}
    told = ", ".join(f"{name} {number:g} (at most {most[name]:g})" for name, number in wanted.items() if number)
    return f"no machine of the Ray cluster has what a job asks for: {told}"


class Worker:
    """What Ray starts, and keeps for as long as a job lives, on the machine that it has chosen."""

    def __init__(self) -> None:
        self.process: LocalProcess | None = None
        self.begun = threading.Event()

    def machine(self) -> str:
        """Where this is."""
        return socket.gethostname()

    def run(self, command: Sequence[str], folder: Path, cwd: Path, environment: Mapping[str, str]) -> tuple[int, str]:
        """The job's exit code, and the result that it has left."""
        import ray

        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        lifeline, self.held = os.pipe()  # its end is the worker's
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it, and a job would inherit that
        try:
            environment = {**environment, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
            self.process = start_job(command, folder, lifeline, environment, cwd)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            self.begun.set()
        return self.process.wait(), left_in(folder)

    def send(self, number: int) -> None:
        """Hand the job a signal."""
        self.begun.wait()
        if self.process is not None:
            self.process.send(number)


def left_in(folder: Path) -> str:
    """The result in a job's folder as it is written there."""
    with suppress(OSError, RecipeError):
        return read_text(folder / RESULT)
    return ""


class RayProcess:
    """A job that Ray runs, as a process is for the sweep."""

    group: int | None = None  # it may be elsewhere

    def __init__(self, job: Job, worker: Any, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.job, self.worker = job, worker
        self.returncode: int | None = None
        self.error, self.ended = "", 0.0
        self.signals: list[int] = []
        self.machine = worker.machine.remote()
        self.outcome = worker.run.remote(command, job.folder.absolute(), Path.cwd(), environment)

    def poll(self) -> int | None:
        """The exit code; None until the job has ended and its result is to be seen here."""
        import ray

        if self.returncode is None and self._is_there(self.outcome):
            self.ended = self.ended or time.monotonic()
            try:
                code, result = ray.get(self.outcome)
            except ray.exceptions.RayTaskError as error:  # the job could not be started
                cause = one_line(error.cause)
                code, result, self.error = 1, left_in(self.job.folder), f"{cause}; all machines must see the same files"
            except ray.exceptions.RayError as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                code, result, self.error = 1, left_in(self.job.folder), f"Ray has ended the job: {reason}"
            if left_in(self.job.folder) == result or time.monotonic() > self.ended + LATE:
                self._finish(code)
        while self.returncode is None and self.signals:
            number = self.signals.pop(0)
            if self._is_there(self.machine):
                self.worker.send.remote(number)
            else:  # no machine was free so far
                self._finish(-number)
        return self.returncode

    def send(self, number: int) -> None:
        """Send a signal to the job at the next look at it: this may be called amid any of Ray's functions."""
        self.signals.append(number)

    def _is_there(self, value: Any) -> bool:
        import ray

        return bool(ray.wait([value], timeout=0)[0])

    def _finish(self, code: int) -> None:
        import ray

        self.returncode = code
        ray.kill(self.worker)  # gives back what the job was dealt


class RaySweep(Sweep):
    """A sweep whose jobs Ray runs.

    Args:
        folder, plan, command: as of :class:`Sweep`.
        settings: those of `hydra.launcher`.
    """

    def __init__(self, folder: Path, plan: Plan, command: Sequence[str], settings: Mapping[str, Any]) -> None:
        jobs = settings["n_jobs"]
        super().__init__(folder, plan, command, n_jobs=1 if jobs == -1 else jobs)
        self._room = None
        self.gpus, self.n_jobs = [], sys.maxsize if jobs == -1 else jobs  # Ray deals them out

    def _launch(self, job: Job, gpus: Sequence[str]) -> RayProcess:
        import ray

        if missing := shortage(job.request):
            self.say(f"{job.name}  waits: {missing}")
        words = words_of(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        cores = max(1, int(job.request["num_cpus"]) // max(1, job.devices or 1))
        environment = {"OMP_NUM_THREADS": str(cores), **os.environ}
        worker = ray.remote(Worker).options(**job.request, max_concurrency=2).remote()
        return RayProcess(job, worker, [*self.command, *words], environment)

    def _reason(self, job: Job, process: Any) -> str:
        return process.error or super()._reason(job, process)
