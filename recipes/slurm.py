"""Inside of a Slurm job: ranks that fit what Slurm started, signals that ask for an end, the way back into the queue.

Nothing here imports torch: a signal may come while a run is still loading, and would end the process unheard.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from recipes.catalogue import UsageError, one_line
from recipes.files import write_text

PREEMPTION = ("SIGUSR1", "SIGUSR2")  # with which Slurm, by --signal, and submitit ask a job to save and to come back
SIGNALS = ("SIGINT", "SIGTERM", *PREEMPTION)  # what asks for an end; the later ones have more to say
INTERACTIVE = ("bash", "interactive")  # names of jobs in which Lightning starts processes itself, as outside of Slurm
ERRORS = "errors"  # folder of what each rank has to say about its failure
# what a rank says that has lost another one
CONSEQUENCE = re.compile(r"connection (closed|reset)|broken pipe|socket|nccl|gloo|c10d|store|timed? ?out|another process", re.I)
LATE = 30.0  # seconds that a shared file system may take to show what another node has written
LOST = re.compile(r"^srun: error: (?P<node>\S+): tasks? (?P<rank>\d+)\S*: (?P<what>.+)$", re.M)

received: list[str] = []  # signals that came before the run took them itself


def in_job() -> bool:
    """Whether this process belongs to a Slurm job."""
    return "SLURM_JOB_ID" in os.environ


def ranks() -> int:
    """The number of processes that `srun` has started side by side with this one; 1 outside of Slurm."""
    return int(os.environ.get("SLURM_NTASKS", 1)) if in_job() and "SLURM_STEP_ID" in os.environ else 1


def listen() -> None:
    """From now on hear the signals of a Slurm job, which would else end the process."""

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)

    if in_job():
        for name in ("SIGTERM", *PREEMPTION):
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


def is_first() -> bool:
    """Whether this is the rank that writes; the others must not end badly before it, for their end would be its own."""
    return ranks() == 1 or os.environ.get("SLURM_PROCID", "0") == "0"


def comes_back(stopped_by: str) -> bool:
    """Whether the signal asked the job to go back into the queue."""
    return in_job() and stopped_by in PREEMPTION


def come_back(stopped_by: str) -> None:
    """Put the job back into the queue if a signal asked for it; the first rank does so for all."""
    if comes_back(stopped_by) and is_first():
        requeue()


# ------------------------------------------------------------------ errors


def fail(folder: Path, error: BaseException, code: int, is_mistake: bool) -> None:
    """In one of several ranks: leave a word, and end the process at once, before it waits for the others."""
    if ranks() == 1:
        return
    rank = int(os.environ.get("SLURM_PROCID", 0))
    note = {"rank": rank, "host": os.environ.get("SLURMD_NODENAME", ""), "error": one_line(error), "mistake": is_mistake}
    note["start"] = _this_start()
    with suppress(UsageError):  # the disk may be what failed
        write_text(folder / ERRORS / f"{rank}.json", json.dumps(note) + "\n")
    print(f"error: {one_line(error)}", file=sys.stderr) if is_mistake else traceback.print_exception(error)
    end(code)


def end_with_others(folder: Path) -> None:
    """In one of several ranks: end at once when Slurm asks for it because another one has failed.

    Python hears no signal while torch waits for that rank; only a thread does, of what Python's own handler writes to a pipe.
    """
    if ranks() == 1:
        return
    heard, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def wait() -> None:
        while signal.SIGTERM not in os.read(heard, 64):
            pass
        until = time.monotonic() + LATE
        while time.monotonic() < until:
            if any(note["start"] == _this_start() for note in _notes(folder)):
                end(1)
            time.sleep(0.5)

    threading.Thread(target=wait, daemon=True).start()


def _this_start() -> str:
    """What tells the ranks of this start of a job from those of others in the same folder."""
    return f"{os.environ.get('SLURM_JOB_ID')}.{restarts()}"


def _notes(folder: Path) -> list[dict[str, Any]]:
    """What ranks have said of their failures, the first one first."""
    paths = sorted((folder / ERRORS).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in paths]


def end(code: int) -> None:
    """End the process with all it has started, without waiting for anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def forget_errors(folder: Path) -> None:
    """Remove what the ranks of an earlier start have said."""
    shutil.rmtree(folder / ERRORS, ignore_errors=True)


def first_error(folder: Path, output: str) -> str:
    """What went wrong first among several ranks, in a line: the others fail because they have lost the one that did.

    Args:
        folder: the run's folder.
        output: what the job has printed, `srun` too.
    """
    notes = []
    for note in _notes(folder):
        if note["mistake"]:
            return str(note["error"])
        notes.append((note["error"], f"rank {note['rank']} on {note['host']}: {note['error']}"))
    for error, line in notes:
        if not CONSEQUENCE.search(error):
            return line
    for lost in LOST.finditer(output):
        if "Exited" not in lost["what"]:
            memory = " (is there enough memory?)" if lost["what"].startswith("Killed") else ""
            return f"rank {lost['rank']} on {lost['node']}: {lost['what'].lower()}{memory}"
    return notes[0][1] if notes else ""
