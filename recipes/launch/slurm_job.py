"""Inside of a Slurm job: ranks that fit what Slurm started, signals that ask for an end, the way back into the queue.

Nothing here imports torch: a signal may come while a run is still loading, and would end the process unheard.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from plugins.errors import RecipeError
from recipes.config.errors import one_line
from recipes.launch.identity import here, in_job

PREEMPTION = ("SIGUSR1", "SIGUSR2")  # with which Slurm, by --signal, and submitit ask a job to save and to come back
ASKING = ("SIGHUP", "SIGINT", "SIGTERM")  # what asks for an end anywhere: a lost terminal, Ctrl-C, the system
SIGNALS = (*ASKING, *PREEMPTION)  # in a Slurm job; the later ones have more to say
INTERACTIVE = ("bash", "interactive")  # names of jobs in which Lightning starts processes itself, as outside of Slurm
received: list[str] = []  # signals that came before the run took them itself


def ranks() -> int:
    """The number of processes that `srun` has started side by side with this one; 1 outside of Slurm."""
    return here().world if here().launcher == "srun" else 1


def listen(*names: str) -> None:
    """From now on hear these signals, which would else end the process; in a Slurm job those which it is sent in any case.

    Those that are ignored, as a lost terminal is under nohup, stay so.
    """
    for name in {*names, *(("SIGTERM", *PREEMPTION) if in_job() else ())}:
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), _note)


def listen_no_more() -> None:
    """Let what asks for an end do so at once, as there is nothing to save; it may have come already."""
    for name in ASKING:
        if signal.getsignal(number := getattr(signal, name)) is _note:
            signal.signal(number, signal.SIG_DFL)
            if name in received:
                os.kill(os.getpid(), number)


def _note(number: int, frame: FrameType | None) -> None:
    received.append(signal.Signals(number).name)


def check_ranks(trainer: Mapping[str, Any]) -> None:
    """Refuse processes of Slurm that are not those which the config wants: they would wait for each other for ever."""
    job, nodes, devices = here().job, trainer["num_nodes"], trainer["devices"]
    wanted = nodes * devices if isinstance(devices, int) and devices > 0 else None
    if job is None or here().launcher not in ("alone", "srun"):
        return
    if job.tasks > 1 and ranks() == 1:
        raise RecipeError(f"the Slurm job is to have {job.tasks} processes, and one was started: put srun in front of python")
    # train.py itself starts the processes of one machine
    by_slurm = ranks() > 1 or (job.name not in INTERACTIVE and max(nodes, job.nodes) > 1)
    if by_slurm and (nodes != job.nodes or (wanted is not None and wanted != job.tasks)):
        fix = f"trainer.num_nodes={job.nodes} trainer.devices={max(1, job.tasks // job.nodes)}"
        raise RecipeError(
            f"Slurm has started {job.tasks} processes on {job.nodes} nodes, and trainer.num_nodes={nodes} with trainer.devices="
            f"{devices} wants {wanted or 'another number'} on {nodes}: type trainer=ddp {fix}, or ask Slurm for "
            f"--nodes={nodes} --ntasks-per-node={devices}"
        )


def restarts() -> int:
    """How often Slurm has put the job back into the queue."""
    job = here().job
    return job.restarts if job else 0


def _requeue() -> None:
    job = here().job
    assert job is not None
    try:
        done = subprocess.run(["scontrol", "requeue", job.number], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RecipeError(f"the job could not be put back into the queue: {one_line(error)}") from None
    if done.returncode:
        raise RecipeError(f"the job could not be put back into the queue: {done.stderr.strip()}; sbatch needs --requeue")
    print(f"the job {job.number} is back in the queue", flush=True)


requeue: Callable[[], None] = _requeue  # what puts the job back into the queue; submitit has a way of its own


def comes_back(stopped_by: str) -> bool:
    """Whether the signal asked the job to go back into the queue."""
    return in_job() and stopped_by in PREEMPTION


def come_back(stopped_by: str) -> None:
    """Put the job back into the queue if a signal asked for it."""
    if comes_back(stopped_by):
        requeue()
