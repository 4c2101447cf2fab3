"""The jobs of a sweep: each a process of its own, several at a time, none twice.

A sweep's folder holds `jobs.yaml` (the words it was started with, and those of each job) and `sweep.log`; each job has a
folder with `output.log` beside what a run leaves. A job is known by its words: whatever interrupted a sweep, going on with
it keeps the jobs that are finished, resumes those that left a checkpoint and starts the others again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import yaml
from omegaconf import ListConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from plugins.metric import larger_is_better
from recipes.config.catalogue import UsageError, path_word, quoted, show, typed
from recipes.config.errors import one_line, printable
from recipes.config.invoked import as_typed
from recipes.config.settings import expect_below, expect_jobs
from recipes.config.untrusted import (
    LARGEST_RECORD,
    check_files,
    check_inside,
    check_sweep,
    open_file,
    read_text,
    read_yaml,
)
from recipes.launch.identity import LIFELINE
from recipes.launch.ranks import read_result
from recipes.store import shapes
from recipes.store.claim import remove_run
from recipes.store.files import hold, is_held, open_to_append, remove_empty, unwritable, write_text
from recipes.store.shapes import is_number, is_texts

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 60.0  # seconds for a job of an earlier, killed process to save its state and end
FILE = "jobs.yaml"
NUMBER = "slurm-job.txt"  # in a job's folder: its number in Slurm's queue
LABEL = re.compile(r"^ *\d+: ")  # before each line of one of several ranks that Slurm has started
HEAD = """\
# A sweep. To go on with it, or to see what came of it:
#   python train.py -m {sweep}
#   python compare.py {folder}
# A job that is taken out below is not run again.
"""
OF_A_SWEEP = (FILE, "sweep.log", "multirun.yaml")  # what is in a sweep's folder before its first job


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
    """

    number: int
    folder: Path
    words: list[str]
    shown: str
    devices: int | None = 1
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    request: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How the job is called in lines for the user."""
        return f"job {self.number}" + (f"  {self.shown}" if self.shown else "")

    @property
    def score(self) -> float | None:
        """The metric that chose the best model."""
        value = self.result.get("metrics", {}).get(self.result.get("monitor"))
        return None if value is None or self.error or self.diverged else float(value)

    @property
    def diverged(self) -> bool:
        """Whether its loss or weights became NaN or infinite: it has ended, and would end so again."""
        return self.result.get("status") == "diverged"

    def read(self) -> None:
        """Look at what the run has left."""
        self.result = read_result(self.folder)

    def last_line(self, beginning: str = "") -> str:
        """The last line, of those that begin so, that the job has printed."""
        try:
            with open(open_file(self.folder / "output.log"), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = [LABEL.sub("", line) for line in file.read().decode(errors="replace").splitlines()]
        except (OSError, UsageError):
            return ""
        return next((printable(line.strip()) for line in reversed(lines) if line.strip() and line.startswith(beginning)), "")


@dataclass
class Plan:
    """What `jobs.yaml` holds: the words of the sweep, Hydra's own among them apart, and the words of each job folder."""

    words: list[str] = field(default_factory=list)
    hydra: list[str] = field(default_factory=list)
    config_dir: str | None = None
    jobs: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan in a sweep's folder."""
        path = folder / FILE
        try:
            content = read_yaml(path, LARGEST_RECORD)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        jobs, config_dir = content.get("jobs"), content.get("config_dir")
        lists = [content.get("words"), content.get("hydra"), *(jobs.values() if isinstance(jobs, Mapping) else [None])]
        if not all(map(is_texts, lists)):
            raise UsageError(f"{path} is not what a sweep writes: expected lists of words")
        if not isinstance(config_dir, str | None):
            raise UsageError(f"{path} is not what a sweep writes: config_dir must be a folder")
        plan = cls(content["words"], content["hydra"], config_dir, {str(name): words for name, words in jobs.items()})  # type: ignore[union-attr]
        for name in plan.jobs:
            expect_inside(folder, name)
        return plan

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        text = yaml.safe_dump(vars(self), sort_keys=False, allow_unicode=True, width=10**6)
        write_text(folder / FILE, HEAD.format(sweep=typed("sweep", folder), folder=path_word(folder)) + text)

    def folder_for(self, words: Sequence[str], wanted: str) -> tuple[str, bool]:
        """The folder of the job with these words, in any order, and whether the job is new.

        It is the one that the job has, or `wanted`, or the next free number.
        """
        for name, others in self.jobs.items():
            if sorted(others) == sorted(words):
                return name, False
        number = 0
        while wanted in self.jobs:
            wanted = str(number)
            number += 1
        self.jobs[wanted] = list(words)
        return wanted, True


def expect_sweep_or_empty(folder: Path) -> None:
    """Refuse to sweep in a folder that holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the output folder cannot be written: {folder} is a file; choose another one: sweep=FOLDER")
    if not (folder / FILE).exists() and any(path.name not in OF_A_SWEEP for path in folder.glob("*")):
        raise UsageError(f"{folder} is there, and is no sweep: looked for {FILE}; choose another folder: sweep=FOLDER")


def remove_sweep(folder: Path) -> None:
    """Leave nothing of a sweep that has no job: what Hydra and we have written for it."""
    if not (folder / FILE).exists() or not Plan.read(folder).jobs:
        for name in OF_A_SWEEP:
            (folder / name).unlink(missing_ok=True)
        remove_empty(folder)


def expect_inside(folder: Path, name: str) -> None:
    """Refuse the folder of a job that is not below the sweep's."""
    expect_below(folder, name)
    check_inside(folder, os.path.normpath(name))


def sweep_of(folder: Path) -> tuple[Path, Plan] | None:
    """The sweep that a run's folder belongs to."""
    folder = folder.absolute()
    for above in folder.parents[:4]:
        with suppress(UsageError):  # a file of another program
            if (above / FILE).is_file() and str(folder.relative_to(above)) in (plan := Plan.read(above)).jobs:
                return above, plan
    return None


def is_job(folder: Path, words: Sequence[str]) -> bool:
    """Whether a folder is that of a sweep's job with these words."""
    found = sweep_of(folder)
    return found is not None and sorted(found[1].jobs[str(folder.absolute().relative_to(found[0]))]) == sorted(words)


def accelerators() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without loading torch."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    try:
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def deal(gpus: Sequence[str], taken: Sequence[Sequence[str]], wanted: int | None) -> list[str]:
    """The GPUs for the next job: those that the fewest running jobs have, all of them where `wanted` is None or too many."""
    load = {gpu: sum(gpu in others for others in taken) for gpu in gpus}
    return sorted(gpus, key=lambda gpu: load[gpu])[: wanted if wanted is not None else len(gpus)]


class Process(Protocol):
    """What runs a job."""

    returncode: Any

    def poll(self) -> int | None:
        """Its exit code; None until it has ended."""

    def send(self, number: int) -> None:
        """Send a signal to it."""


class LocalProcess(subprocess.Popen[bytes]):
    """A process on this machine."""

    def send(self, number: int) -> None:
        """Send a signal to the process and those that it started."""
        if self.poll() is None:
            os.killpg(self.pid, number)


def start_job(
    command: Sequence[str], folder: Path, lifeline: int, environment: Mapping[str, str], cwd: Path | None = None
) -> LocalProcess:
    """Start a job, which prints into its folder, and ends when nobody has the other end of its lifeline any more."""
    with open_to_append(folder / "output.log") as output:
        return LocalProcess(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[lifeline],
            cwd=cwd,
            env={**environment, LIFELINE: str(lifeline)},
        )


@dataclass
class Running:
    """A job's process, with the GPUs it was dealt."""

    process: Process
    gpus: list[str]
    began: float = field(default_factory=time.monotonic)


class Sweep:
    """A sweep in its folder.

    Args:
        folder: the sweep's folder.
        plan: the words it was started with; the jobs of an earlier start are taken over.
        command: what starts a job, up to its words.
        n_jobs: jobs at a time; -1: one a GPU, or one a CPU core where there is no GPU.
    """

    def __init__(self, folder: Path, plan: Plan, command: Sequence[str], n_jobs: int = 1) -> None:
        expect_jobs(n_jobs)
        expect_sweep_or_empty(folder)
        self.folder, self.plan, self.command = folder, plan, list(command)
        self.gpus = accelerators() if n_jobs != 1 else []
        self.n_jobs = n_jobs if n_jobs > 0 else len(self.gpus) or os.cpu_count() or 1
        self.jobs: list[Job] = []
        self.console = Console()
        self._log_lost = False
        self.make: Callable[[int, list[str]], Job] = lambda number, words: Job(number, folder, words, "")
        self._running: dict[Job, Running] = {}
        self._held: dict[Job, float] = {}  # jobs that another process holds, and since when they wait for it
        check_sweep(folder)
        self._lock = ExitStack()  # until the process ends
        self._lock.enter_context(hold(folder / "sweep.log", f"works on the sweep in {folder}"))
        self._lifeline = os.pipe()  # never written to: jobs read its end when this process is gone
        if (folder / FILE).exists():
            plan.jobs = Plan.read(folder).jobs | plan.jobs

    @property
    def failed(self) -> list[Job]:
        """The jobs that ended badly."""
        return [job for job in self.jobs if job.error]

    @property
    def diverged(self) -> list[Job]:
        """The jobs that have diverged: the others are compared with them."""
        return [job for job in self.jobs if job.diverged and not job.error]

    def run(self, jobs: Sequence[Job], total: int | None = None) -> None:
        """Run jobs, but for those that are finished; returns when all have ended.

        Args:
            jobs: the jobs of a batch.
            total: the number of jobs of the whole sweep, where it is known to be larger.

        Raises:
            SystemExit: a signal asked for an end; all jobs have ended, too.
        """
        self.plan.write(self.folder)
        self.jobs += jobs
        first = {job.folder: job for job in reversed(jobs)}  # a search may ask for one job more than once
        waiting = list(dict.fromkeys(first[job.folder] for job in jobs))
        for each in waiting:  # before any of them is started
            check_job(each.folder)
        running, self.display = self._running, _Display(self.console, max(total or 0, len(self.jobs)))
        with _signals(self._pass_on) as received, self.display:
            self.display.done(len(self.jobs) - len(waiting))
            while waiting or running:
                if received:
                    waiting.clear()
                while len(running) < self.n_jobs and (job := self._next(waiting)):
                    self._begin(job)
                    for number in received if job in running else ():  # it came while the process was started
                        running[job].process.send(number)
                for job in [job for job, each in running.items() if each.process.poll() is not None]:
                    ended = running.pop(job)
                    self._end(job, ended.process, bool(received))
                    self.display.end(job)
                    took = duration(time.monotonic() - ended.began)
                    self._say(f"{job.name}  {job.error or summary(job)}  ({took})")
                self.display.show(running)
                time.sleep(0.05)
            for job in jobs:
                job.result, job.error = first[job.folder].result, first[job.folder].error
            if received:
                finished = sum(job.result.get("status") == "finished" for job in self.jobs)
                self._say(f"stopped by {signal.Signals(received[0]).name}; {finished} jobs are finished")
                for line in self._farewell(received[0]):
                    self._say(line)
        if received:
            sys.exit(128 + received[0])

    def _farewell(self, number: int) -> list[str]:
        """What to tell after a signal has ended the sweep."""
        return [f"go on    python train.py -m {typed('sweep', self.folder)}"]

    def run_rest(self) -> None:
        """Run the jobs of earlier starts that were not asked for this time."""
        asked = {job.folder for job in self.jobs}
        rest = [words for name, words in self.plan.jobs.items() if self.folder / name not in asked]
        if rest:
            self.run([self.make(len(self.jobs) + number, words) for number, words in enumerate(rest)])

    def _next(self, waiting: list[Job]) -> Job | None:
        """The first job in whose folder no process of an earlier start is still ending."""
        for job in list(waiting):
            held = is_held(job.folder / "train.log")
            if held and self._held.setdefault(job, time.monotonic()) > time.monotonic() - PATIENCE:
                continue
            waiting.remove(job)
            if not held:
                return job
            job.error = f"another process trains in {job.folder}"
            self.display.done(1)
            self._say(f"{job.name}  {job.error}")
        return None

    def _begin(self, job: Job) -> None:
        """Start a job, unless it is finished."""
        job.read()
        if job.result.get("status") in ("finished", "diverged"):
            self.display.done(1)
            self._say(f"{job.name}  {'has ended' if job.diverged else 'is finished'}: {summary(job)}")
            return
        gpus = deal(self.gpus, [each.gpus for each in self._running.values()], job.devices)
        self._running[job] = Running(self._launch(job, gpus), gpus)
        self.display.start(job, gpus)
        self._log(f"{job.name}  started in {job.folder}")

    def _words(self, job: Job) -> list[str]:
        """What a job is started with: to go on if it can, else anew, in a folder without what an earlier start has left."""
        place = quoted(job.folder)
        if can_go_on(job.folder):
            return [f"resume={place}"]
        remove_run(job.folder)  # such as what a process left that was killed before its first checkpoint
        return [*job.words, f"hydra.run.dir={place}", f"hydra.job.num={job.number}", f"hydra.job.id='{job.number}'"]

    def _launch(self, job: Job, gpus: Sequence[str]) -> Process:
        words = self._words(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        if self.n_jobs > 1:  # threads of several processes would wait for each other
            processes = self.n_jobs * (job.devices or 1)
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        return start_job([*self.command, *words], job.folder, self._lifeline[0], environment)

    def _pass_on(self, number: int) -> None:
        for each in list(self._running.values()):
            each.process.send(signal.SIGTERM if number == signal.SIGHUP else number)  # it was our terminal, not theirs

    def _end(self, job: Job, process: Process, stopping: bool) -> None:
        """Note how a job ended; where the run could not do so itself, in its result too."""
        job.read()
        if not process.returncode:
            if not job.result:  # explained, not trained
                for line in read_text(job.folder / "output.log", LARGEST_RECORD).splitlines():
                    self.display.say(line)
                remove_run(job.folder)
                del self.plan.jobs[str(job.folder.relative_to(self.folder))]
                self.plan.write(self.folder)
            return
        if job.diverged:
            return
        if stopping:
            job.error = "stopped"
            return
        job.error = self._reason(job, process)
        if job.result.get("status") not in ("finished", "stopped") and job.result.get("error") != job.error:
            job.result |= {"status": "failed", "error": job.error, "command": job.words}
            job.result.setdefault("config", {})
            with suppress(UsageError):  # the disk may be what failed; then the job is run again as one that was killed
                write_text(job.folder / "result.json", json.dumps(job.result, indent=2) + "\n")

    def _reason(self, job: Job, process: Process) -> str:
        """Why a job ended badly, in a line."""
        code = int(process.returncode)
        if code < 0:
            name = signal.Signals(-code).name
            return f"ended by {name}" + (" (is there enough memory?)" if -code == signal.SIGKILL else "")
        stopped = f"stopped by {job.result.get('stopped_by')}" if job.result.get("status") == "stopped" else ""
        return job.result.get("error") or stopped or job.last_line().removeprefix("error: ") or f"exit code {code}"

    def _say(self, line: str) -> None:
        """A line in the log and for the user."""
        self._log(line)
        self.display.say(line)

    def _log(self, line: str) -> None:
        try:
            with open_to_append(self.folder / "sweep.log") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {printable(line)}\n".encode())
        except OSError as error:  # the jobs may have room elsewhere
            if not self._log_lost:
                self.display.say(f"warning: {one_line(unwritable(self.folder / 'sweep.log', error))}")
            self._log_lost = True


def can_go_on(folder: Path) -> bool:
    """Whether a run has left a checkpoint and a config that are whole."""
    if not zipfile.is_zipfile(folder / "checkpoints" / "last.ckpt"):
        return False
    try:
        return bool(read_yaml(folder / "config.yaml"))
    except (OSError, UsageError):
        return False


def check_job(folder: Path) -> None:
    """Raise where a job's folder holds what no run has left: it is neither gone on with nor removed."""
    check_files(folder)
    for name, read in (("result.json", shapes.read_result), ("config.yaml", lambda folder: read_yaml(folder / "config.yaml"))):
        with suppress(FileNotFoundError):
            if not read(folder):
                raise UsageError(f"{folder / name} is empty: move it away")


def summary(job: Job) -> str:
    """The numbers of a finished job that count."""
    if job.diverged:
        return f"diverged at step {job.result.get('steps')}"
    metrics, monitor = job.result.get("metrics", {}), str(job.result.get("monitor"))
    names = dict.fromkeys([monitor, monitor.replace("val/", "test/", 1)])
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names if metrics.get(name) is not None) or "done"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@contextmanager
def _signals(pass_on: Any) -> Iterator[list[int]]:
    """Collect the signals that ask for an end, and hand each on at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        pass_on(number)

    heard = [number for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    previous = {number: signal.signal(number, note) for number in heard}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Display:
    """On a terminal a bar for the sweep and a line for each running job; elsewhere nothing but the lines that are said."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.lines: dict[int, Any] = {}
        if console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=48)),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[line]}", style="dim", markup=False, table_column=Column(no_wrap=True, ratio=1)),
                expand=True,
                console=console,
                transient=True,
                auto_refresh=False,
            )
            self.total = self.bar.add_task("sweep", total=total, line="")
        self.shown = 0.0

    def __enter__(self) -> _Display:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, line: str) -> None:
        """A line above the bars."""
        self.console.print(as_typed(printable(line)), markup=False, highlight=False, soft_wrap=True)

    def done(self, number: int) -> None:
        """Jobs that have ended."""
        if self.bar:
            self.bar.advance(self.total, number)

    def start(self, job: Job, gpus: Sequence[str]) -> None:
        """A job has started."""
        if self.bar:
            where = f"  GPU {','.join(gpus)}" if gpus else ""
            self.lines[job.number] = self.bar.add_task(printable(f"  {job.name}{where}"), total=None, line="")

    def end(self, job: Job) -> None:
        """A job has ended."""
        if self.bar:
            self.bar.remove_task(self.lines.pop(job.number))
        self.done(1)

    def show(self, running: Iterable[Job]) -> None:
        """What the running jobs have printed last."""
        if not self.bar or time.monotonic() < self.shown + 0.25:
            return
        self.shown = time.monotonic()
        for job in running:
            epoch, _, numbers = job.last_line("epoch ").removeprefix("epoch ").partition("  ")
            done, _, total = epoch.partition("/")
            if done.isdigit():
                total_epochs = int(total) if total else None
                self.bar.update(self.lines[job.number], completed=int(done), total=total_epochs, line=numbers)
        self.bar.refresh()


def best_of_search(folder: Path) -> str:
    """What Optuna has found, by the metric that chooses models, as words for the command line; empty for other sweeps."""
    path = folder / "optimization_results.yaml"
    try:
        found = read_yaml(path)
    except FileNotFoundError:
        return ""
    best, value = found.get("best_params") or {}, found.get("best_value")
    if not isinstance(best, Mapping) or not is_number(value):
        return ""
    words = " ".join(f"{name}={show(value)}" for name, value in best.items())
    return f"{words}  ({value:.4f} in validation)" if words else ""


def check_direction(folder: Path, jobs: Sequence[Job], direction: Any) -> None:
    """Refuse to look for the largest loss, or for the smallest accuracy; the jobs that are finished are kept."""
    known = {
        (name, larger_is_better(name, job.result.get("directions"))) for job in jobs if (name := job.result.get("monitor"))
    }
    for name, larger in known if direction is not None and not isinstance(direction, list | ListConfig) else ():
        right = "maximize" if larger else "minimize"
        if larger is not None and right != getattr(direction, "name", direction):
            words = f"{typed('sweep', folder)} hydra.sweeper.direction={right}"
            raise UsageError(f"the best model of a job is chosen by {name}; to go on: python train.py -m {words}")


current: Sweep | None = None  # the sweep that this process runs
