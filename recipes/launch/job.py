"""A job of a sweep: what it has left in its folder, and the process that trains it. Nothing here imports torch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from plugins.errors import RecipeError
from recipes.config.errors import one_line, printable
from recipes.config.own import changed, own_words
from recipes.config.places import check_files, open_file
from recipes.config.quoting import quoted
from recipes.config.run_files import CHECKPOINTS, CONFIG, LAST, OUTPUT, RESULT
from recipes.config.untrusted import LARGEST_RECORD, read_text, read_yaml
from recipes.launch import parent
from recipes.launch.identity import LIFELINE
from recipes.store import shapes
from recipes.store.claim import remove_run
from recipes.store.files import open_to_append
from recipes.store.folder import result_or_empty

LABEL = re.compile(r"^ *\d+: ")  # before each line of one of several ranks that Slurm has started


@dataclass(eq=False)
class Job:
    """One training of a sweep.

    Attributes:
        number: its place in the sweep.
        folder: where it leaves its run.
        words: what it is started with.
        shown: the words in which the jobs of the sweep differ.
        devices: how many accelerators it trains on; None: all there are.
        result: what `result.json` holds; empty before the run has written one.
        error: what went wrong, in a line.
        request: what it asks a cluster for.
        was_finished: before this start of the sweep came to it.
        composed: what the words that it begins with are composed to, for a fork; empty: it composes them itself.
    """

    number: int
    folder: Path
    words: list[str]
    shown: str
    devices: int | None = 1
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    request: dict[str, Any] = field(default_factory=dict)
    was_finished: bool = False
    composed: bytes = b""

    @property
    def name(self) -> str:
        """How the job is called in lines for the user."""
        return f"job {self.number}" + (f"  {self.shown}" if self.shown else "")

    @property
    def score(self) -> float | None:
        """The metric that chose the best model."""
        value = self.result.get("metrics", {}).get(self.result.get("monitor"))
        return None if value is None or self.error or self.result.get("status") != "finished" else float(value)

    @property
    def diverged(self) -> bool:
        """Whether its loss or weights became NaN or infinite: it has ended, and would end so again."""
        return self.result.get("status") == "diverged"

    def read(self) -> None:
        """Look at what the run has left."""
        self.result = result_or_empty(self.folder)

    def has_ended(self) -> bool:
        """Whether there is nothing left to train, as its run tells."""
        self.read()
        self.was_finished = self.result.get("status") == "finished"
        return self.result.get("status") in ("finished", "diverged", "pruned")

    def last_line(self, beginning: str = "") -> str:
        """The last line, of those that begin so, that the job has printed."""
        try:
            with open(open_file(self.folder / OUTPUT), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = [LABEL.sub("", line) for line in file.read().decode(errors="replace").splitlines()]
        except (OSError, RecipeError):
            return ""
        return next((printable(line.strip()) for line in reversed(lines) if line.strip() and line.startswith(beginning)), "")


class Process(Protocol):
    """What runs a job."""

    returncode: Any

    @property
    def group(self) -> int | None:
        """The number of its process group, where that is on this machine."""

    def poll(self) -> int | None:
        """Its exit code; None until it has ended."""

    def send(self, number: int) -> None:
        """Send a signal to it."""


class LocalProcess(subprocess.Popen[bytes]):
    """A process on this machine."""

    @property
    def group(self) -> int:
        """The number of its process group."""
        return self.pid

    def send(self, number: int) -> None:
        """Send a signal to the process and those that it started."""
        if self.poll() is None:
            os.killpg(self.pid, number)


def start_job(
    command: Sequence[str], folder: Path, lifeline: int, environment: Mapping[str, str], cwd: Path | None = None
) -> LocalProcess:
    """Start a job, which prints into its folder, and ends when nobody has the other end of its lifeline any more."""
    with open_to_append(folder / OUTPUT) as output:
        return LocalProcess(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[lifeline],
            cwd=cwd,
            env=parent.of_mine({**environment, LIFELINE: str(lifeline)}),
        )


@dataclass
class Running:
    """A job's process, with the GPUs it was dealt."""

    process: Process
    gpus: list[str]
    began: float = field(default_factory=time.monotonic)


def can_go_on(folder: Path) -> bool:
    """Whether a run has left a checkpoint and a config that are whole."""
    if not zipfile.is_zipfile(folder / CHECKPOINTS / LAST):
        return False
    try:
        return bool(read_yaml(folder / CONFIG))
    except (OSError, RecipeError):
        return False


def words_of(job: Job) -> list[str]:
    """What a job is started with: to go on if it can, else anew, in a folder without what an earlier start has left."""
    if can_go_on(job.folder):
        return [f"resume={quoted(job.folder)}", *own_words(job.words)]
    remove_run(job.folder)  # such as what a process left that was killed before its first checkpoint
    return words_to_begin(job.words, job.folder, job.number)


def words_to_begin(words: Sequence[str], folder: Path, number: int) -> list[str]:
    """What a job is started with that has nothing to go on with."""
    return [*words, f"hydra.run.dir={quoted(folder)}", f"hydra.job.num={number}", f"hydra.job.id='{number}'"]


def check_job(folder: Path) -> None:
    """Raise where a job's folder holds what no run has left: it is neither gone on with nor removed."""
    check_files(folder)
    for name, read in ((RESULT, shapes.read_result), (CONFIG, lambda folder: read_yaml(folder / CONFIG))):
        with suppress(FileNotFoundError):
            if not read(folder):
                raise RecipeError(f"{folder / name} is empty: move it away")


def explained(job: Job, say: Callable[[str], None]) -> bool:
    """Whether a job that has ended well without a result was explained and not trained; then what it has printed is said.

    Else, where it has left files of a run, or nothing at all, that is an error of the job.
    """
    try:
        with suppress(FileNotFoundError):
            shapes.read_result(job.folder)
            raise RecipeError(f"{job.folder / RESULT} is empty")
        if left := [name for name in (CONFIG, CHECKPOINTS) if (job.folder / name).exists()]:
            raise RecipeError(f"ended without a result; it has left {', '.join(left)}")
        lines = read_text(job.folder / OUTPUT, LARGEST_RECORD).splitlines()
    except (OSError, RecipeError) as error:
        job.error = "ended without a result and without a word" if isinstance(error, FileNotFoundError) else one_line(error)
        return False
    for line in lines:
        say(line)
    return True


def told_before(job: Job) -> str:
    """What is told of a job that has ended in an earlier start; a mistake where its class stands in another file now."""
    if told := changed(job.result.get("config", {})):
        job.error = f"{told}: it was trained with another class than the others would be; sweep in another folder"
    ended = "is finished" if job.result["status"] == "finished" else "has ended"
    return job.error or f"{ended}: {summary(job)}"


def summary(job: Job) -> str:
    """The numbers of a finished job that count."""
    if job.result.get("status") == "pruned":
        return f"pruned at step {job.result.get('pruned_at')}"
    if job.diverged:
        return f"diverged at step {job.result.get('steps')}"
    metrics, monitor = job.result.get("metrics", {}), str(job.result.get("monitor"))
    names = dict.fromkeys([monitor, monitor.replace("val/", "test/", 1)])
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names if metrics.get(name) is not None) or "done"


def reason(job: Job, code: int) -> str:
    """Why a job that has ended with this exit code ended badly, in a line."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (is there enough memory?)" if -code == signal.SIGKILL else "")
    stopped = f"stopped by {job.result.get('stopped_by')}" if job.result.get("status") == "stopped" else ""
    return job.result.get("error") or stopped or job.last_line().removeprefix("error: ") or f"exit code {code}"
