"""Slurm's queue, asked seldom, and a job in it as a process is. Nothing here imports torch."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress

from recipes.launch import failures
from recipes.launch.job import Job

WAITING = (
    *("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "RESIZING", "SIGNALING", "STAGE_OUT"),
    *("REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "STOPPED", "PREEMPTED"),
)
PAUSES = (1.0, 15.0)  # seconds between two looks at the queue: at first, and after a while
LEFT = 75  # the code of a job that goes on without us


class Queue:
    """What Slurm says of this user's jobs, asked for all of them at once and not too often."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.answered, self.asked, self.began = False, float("-inf"), time.monotonic()

    def state(self, number: str) -> str:
        """The state of a job; empty where Slurm has forgotten it, and until Slurm has ever answered that of one that waits."""
        pause = min(max(PAUSES[0], (time.monotonic() - self.began) / 20), PAUSES[1])
        if time.monotonic() > self.asked + pause:
            self.look()
        return self.states.get(number, "" if self.answered else "PENDING")

    def look(self) -> None:
        """Ask Slurm; where it does not answer, what it said before stays."""
        words = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%i|%T"]
        with suppress(OSError, subprocess.TimeoutExpired, subprocess.CalledProcessError):
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
            self.states, self.answered = dict(line.split("|", 1) for line in done.stdout.split()), True
        self.asked = time.monotonic()


class Submitted:
    """A job in the queue, as a process is for the sweep."""

    group: int | None = None  # it is elsewhere

    def __init__(self, queue: Queue, number: str, job: Job) -> None:
        self.queue, self.number, self.job = queue, number, job
        self.returncode: int | None = None
        self.state, self.ended = "", 0.0

    def poll(self) -> int | None:
        """0 once the job has ended well, another number if it has not; None until then."""
        if self.returncode is None and (state := self.queue.state(self.number)) not in WAITING:
            self.state, self.ended = state, self.ended or time.monotonic()
            self.job.read()
            finished = self.job.result.get("status") in ("finished", "diverged", "pruned")
            if finished or state not in ("COMPLETED", "") or time.monotonic() > self.ended + failures.LATE:
                self.returncode = 0 if finished or state == "COMPLETED" else 1
        return self.returncode

    def send(self, number: int) -> None:
        """Ctrl-C takes the job out of the queue, saved; whatever else ends this process lets the job go on."""
        if number == signal.SIGINT:
            with suppress(OSError, subprocess.TimeoutExpired):  # a signal's handler goes on with the other jobs
                subprocess.run(["scancel", self.number], capture_output=True, timeout=60)
        else:
            self.returncode = LEFT
