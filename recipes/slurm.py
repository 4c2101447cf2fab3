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

from recipes.catalogue import UsageError

PREEMPTION = ("SIGUSR1", "SIGUSR2")  # with which Slurm, by --signal, and submitit ask a job to save and to come back
SIGNALS = ("SIGINT", "SIGTERM", *PREEMPTION)  # what asks for an end; the later ones have more to say
INTERACTIVE = ("bash", "interactive")  # names of jobs in which Lightning starts processes itself, as outside of Slurm

received: list[str] = []  # signals that came before the run took them itself


def in_job() -> bool:
    """Whether this process belongs to a Slurm job."""
    return "SLURM_JOB_ID" in os.environ


def ranks() -> int:
    """The number of processes that `srun` has started side by side with this one; 1 outside of Slurm."""
    return int(os.environ.get("SLURM_NTASKS", 1)) if in_job() and "SLURM_STEP_ID" in os.environ else 1


def listen(*names: str) -> None:
    """From now on hear these signals, which would else end the process; in a Slurm job those which it is sent in any case."""

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)

    for name in {*names, *(("SIGTERM", *PREEMPTION) if in_job() else ())}:
        signal.signal(getattr(signal, name), note)


def check_ranks(trainer: Mapping[str, Any]) -> None:
    """Refuse processes of Slurm that are not those which the config wants: they would wait for each other for ever."""
    nodes, devices = trainer["num_nodes"], trainer["devices"]
    wanted = nodes * devices if isinstance(devices, int) and devices > 0 else None
    if not in_job():
        if nodes > 1 and not {"WORLD_SIZE", "NODE_RANK", "GROUP_RANK"} & set(os.environ):
            raise UsageError(
                f"trainer.num_nodes={nodes}: nothing has started processes on {nodes} machines; on a cluster with Slurm type "
                f"python train.py -m hydra/launcher=slurm trainer=ddp trainer.num_nodes={nodes}"
            )
        return
    started, machines = int(os.environ.get("SLURM_NTASKS", 1)), int(os.environ.get("SLURM_NNODES", 1))
    if started > 1 and ranks() == 1:
        raise UsageError(f"the Slurm job is to have {started} processes, and one was started: put srun in front of python")
    if ranks() > 1 and os.environ.get("SLURM_JOB_NAME") in INTERACTIVE:
        os.environ["SLURM_JOB_NAME"] = "train"  # Lightning would take each rank for the first of its own training
    by_slurm = ranks() > 1 or os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE
    if by_slurm and (nodes != machines or (wanted is not None and wanted != started)):
        fix = f"trainer.num_nodes={machines} trainer.devices={started // machines}"
        raise UsageError(
            f"Slurm has started {started} processes on {machines} nodes, and trainer.num_nodes={nodes} with trainer.devices="
            f"{devices} wants {wanted or 'another number'} on {nodes}: type trainer=ddp {fix}, or ask Slurm for "
            f"--nodes={nodes} --ntasks-per-node={devices}"
        )


def restarts() -> int:
    """How often Slurm has put the job back into the queue."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def _requeue() -> None:
    number = os.environ["SLURM_JOB_ID"]
    done = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise UsageError(f"the job could not be put back into the queue: {done.stderr.strip()}; sbatch needs --requeue")
    print(f"the job {number} is back in the queue", flush=True)


requeue: Callable[[], None] = _requeue  # what puts the job back into the queue; submitit has a way of its own


def comes_back(stopped_by: str) -> bool:
    """Whether the signal asked the job to go back into the queue."""
    return in_job() and stopped_by in PREEMPTION


def come_back(stopped_by: str) -> None:
    """Put the job back into the queue if a signal asked for it."""
    if comes_back(stopped_by):
        requeue()
