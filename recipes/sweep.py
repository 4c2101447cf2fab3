"""The jobs of a sweep: each a process of its own, several at a time, none twice.

A sweep's folder holds `sweep.yaml` (the words it was started with, and those of each job) and `sweep.log`; each job has a
folder with `output.log` beside what a run leaves. A job is known by its words: whatever interrupted a sweep, going on with
it keeps the jobs that are finished, resumes those that left a checkpoint and starts the others again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

import yaml
from omegaconf import ListConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from plugins.metric import larger_is_better
from recipes.catalogue import UsageError, quote, read_yaml, show
from recipes.files import hold, write_text

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LIFELINE = "LIGHTNING_RECIPES_LIFELINE"  # names the pipe that tells a job that its sweep is gone
PATIENCE = 60.0  # seconds for a job of an earlier, killed process to save its state and end
FILE = "sweep.yaml"
HEAD = "# A sweep. To go on with it, or to see what came of it:\n#   python train.py -m sweep={folder}\n#   python compare.py {folder}\n"


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
    """

    number: int
    folder: Path
    words: list[str]
    shown: str
    devices: int | None = 1
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def name(self) -> str:
        """How the job is called in lines for the user."""
        return f"job {self.number}" + (f"  {self.shown}" if self.shown else "")

    @property
    def score(self) -> float | None:
        """The metric that chose the best model."""
        value = self.result.get("metrics", {}).get(self.result.get("monitor"))
        return None if value is None or self.error else float(value)

    def read(self) -> None:
        """Look at what the run has left."""
        try:
            self.result = json.loads((self.folder / "result.json").read_text())
        except (OSError, ValueError):
            self.result = {}

    def last_line(self, beginning: str = "") -> str:
        """The last line, of those that begin so, that the job has printed."""
        try:
            with open(self.folder / "output.log", "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip() and line.startswith(beginning)), "")


@dataclass
class Plan:
    """What `sweep.yaml` holds: the words of the sweep, Hydra's own among them apart, and the words of each job folder."""

    words: list[str] = field(default_factory=list)
    hydra: list[str] = field(default_factory=list)
    config_dir: str | None = None
    jobs: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan in a sweep's folder."""
        path = folder / FILE
        content = read_yaml(path)
        if not isinstance(content.get("words"), list) or not isinstance(content.get("jobs"), Mapping):
            raise UsageError(f"{path} is not what a sweep writes")
        jobs = {str(name): list(map(str, words)) for name, words in content["jobs"].items()}
        config_dir = content.get("config_dir")
        return cls(list(map(str, content["words"])), list(map(str, content.get("hydra") or [])), config_dir, jobs)

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        text = yaml.safe_dump(vars(self), sort_keys=False, allow_unicode=True, width=10**6)
        write_text(folder / FILE, HEAD.format(folder=folder) + text)

    def folder_for(self, words: Sequence[str], wanted: str) -> str:
        """The name of the folder of the job with these words: the one it has, or `wanted`, or the next free number."""
        for name, others in self.jobs.items():
            if others == list(words):
                return name
        number = 0
        while wanted in self.jobs:
            wanted = str(number)
            number += 1
        self.jobs[wanted] = list(words)
        return wanted


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


@dataclass
class Running:
    """A job's process, with the GPUs it was dealt."""

    process: subprocess.Popen[bytes]
    gpus: list[str]
    began: float = field(default_factory=time.monotonic)

    def send(self, number: int) -> None:
        """Send a signal to the process and those that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)


class Sweep:
    """A sweep in its folder.

    Args:
        folder: the sweep's folder.
        plan: the words it was started with; the jobs of an earlier start are taken over.
        command: what starts a job, up to its words.
        n_jobs: jobs at a time; -1: one a GPU, or one a CPU core where there is no GPU.
    """

    def __init__(self, folder: Path, plan: Plan, command: Sequence[str], n_jobs: int = 1) -> None:
        if n_jobs == 0 or n_jobs < -1:
            raise UsageError(f"hydra.launcher.n_jobs must be a whole number ≥ 1, or -1 for as many as fit, got {n_jobs}")
        self.folder, self.plan, self.command = folder, plan, list(command)
        self.gpus = accelerators() if n_jobs != 1 else []
        self.n_jobs = n_jobs if n_jobs > 0 else len(self.gpus) or os.cpu_count() or 1
        self.jobs: list[Job] = []
        self.console = Console()
        self._running: dict[Job, Running] = {}
        self._lock = ExitStack()  # until the process ends
        self._lock.enter_context(hold(folder / "sweep.log", f"works on the sweep in {folder}"))
        self._lifeline = os.pipe()  # never written to: jobs read its end when this process is gone
        if (folder / FILE).exists():
            plan.jobs = Plan.read(folder).jobs | plan.jobs

    @property
    def failed(self) -> list[Job]:
        """The jobs that ended badly."""
        return [job for job in self.jobs if job.error]

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
        waiting = list(jobs)
        running = self._running
        with _signals(self._pass_on) as received, _display(self.console, max(total or 0, len(self.jobs))) as display:
            display.done(len(self.jobs) - len(jobs))
            while waiting or running:
                while waiting and len(running) < self.n_jobs and not received:
                    job = waiting.pop(0)
                    if self._is_finished(job):
                        self._say(display, f"{job.name}  is finished: {summary(job)}")
                        display.done(1)
                        continue
                    gpus = deal(self.gpus, [each.gpus for each in running.values()], job.devices)
                    running[job] = Running(self._start(job, gpus), gpus)
                    for number in received:  # it came while the process was started
                        running[job].send(number)
                    display.start(job, gpus)
                    self._say(None, f"{job.name}  started in {job.folder}")
                if received:
                    waiting.clear()
                for job in [job for job, each in running.items() if each.process.poll() is not None]:
                    ended = running.pop(job)
                    self._end(job, ended.process.returncode, bool(received))
                    took = duration(time.monotonic() - ended.began)
                    self._say(display, f"{job.name}  {job.error or summary(job)}  ({took})")
                    display.end(job)
                display.show(running)
                time.sleep(0.05)
        if received:
            finished = sum(not job.error and bool(job.result) for job in self.jobs)
            self._say(display, f"stopped by {signal.Signals(received[0]).name}; {finished} jobs are finished")
            self._say(display, f"go on    python train.py -m sweep={quote(str(self.folder))}")
            sys.exit(128 + received[0])

    def _is_finished(self, job: Job) -> bool:
        """Whether an earlier start of the sweep has finished the job; waits for a process of it that is still ending."""
        with hold(job.folder / "train.log", f"trains in {job.folder}", PATIENCE) if job.folder.exists() else ExitStack():
            job.read()
        return bool(job.result.get("status") == "finished")

    def _start(self, job: Job, gpus: Sequence[str]) -> subprocess.Popen[bytes]:
        from hydra.core.override_parser.types import Quote, QuotedString

        place = QuotedString(str(job.folder), Quote.double).with_quotes()
        if (job.folder / "checkpoints" / "last.ckpt").exists() and (job.folder / "config.yaml").exists():
            words = [f"resume={place}"]
        else:
            if job.folder.exists():
                shutil.rmtree(job.folder)  # what a process left that was killed before its first checkpoint
            words = [*job.words, f"hydra.run.dir={place}", f"hydra.job.num={job.number}", f"hydra.job.id='{job.number}'"]
        job.folder.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        if self.n_jobs > 1:  # threads of several jobs would wait for each other
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.n_jobs)))
        with open(job.folder / "output.log", "ab") as output:
            return subprocess.Popen(
                [*self.command, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[self._lifeline[0]],
                env=environment | {LIFELINE: str(self._lifeline[0])},
            )

    def _pass_on(self, number: int) -> None:
        for each in list(self._running.values()):
            each.send(number)

    def _end(self, job: Job, code: int, stopping: bool) -> None:
        """Note how a job ended; where the run could not do so itself, in its result too."""
        job.read()
        if not code:
            if not job.result:  # explained, not trained
                self.console.print((job.folder / "output.log").read_text(), markup=False, highlight=False, soft_wrap=True)
                shutil.rmtree(job.folder)
            return
        if stopping:
            job.error = "stopped"
            return
        stopped = f"stopped by {job.result.get('stopped_by')}" if job.result.get("status") == "stopped" else ""
        reason = job.result.get("error") or stopped or job.last_line().removeprefix("error: ")
        if code < 0:
            name = signal.Signals(-code).name
            reason = f"ended by {name}" + (" (is there enough memory?)" if -code == signal.SIGKILL else "")
        job.error = reason or f"exit code {code}"
        if job.result.get("status") not in ("finished", "stopped", "failed"):
            job.result |= {"status": "failed", "error": job.error, "command": job.words}
            job.result.setdefault("config", {})
            write_text(job.folder / "result.json", json.dumps(job.result, indent=2) + "\n")

    def _say(self, display: _Display | None, line: str) -> None:
        """A line in the log and, where there is a display, for the user."""
        with open(self.folder / "sweep.log", "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        if display:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary(job: Job) -> str:
    """The numbers of a finished job that count."""
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

    previous = {number: signal.signal(number, note) for number in PASSED_ON}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Display:
    """On a terminal a bar for the sweep and a line for each running job; elsewhere nothing but the lines that are said."""

    def __init__(self, console: Console, total: int) -> None:
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
                refresh_per_second=4,
            )
            self.total = self.bar.add_task("sweep", total=total, line="")

    def done(self, number: int) -> None:
        """Jobs that have ended."""
        if self.bar:
            self.bar.advance(self.total, number)

    def start(self, job: Job, gpus: Sequence[str]) -> None:
        """A job has started."""
        if self.bar:
            where = f"  GPU {','.join(gpus)}" if gpus else ""
            self.lines[job.number] = self.bar.add_task(f"  {job.name}{where}", total=None, line="")

    def end(self, job: Job) -> None:
        """A job has ended."""
        if self.bar:
            self.bar.remove_task(self.lines.pop(job.number))
        self.done(1)

    def show(self, running: Mapping[Job, object]) -> None:
        """What the running jobs have printed last."""
        if self.bar:
            for job in running:
                epoch, _, numbers = job.last_line("epoch ").removeprefix("epoch ").partition("  ")
                done, _, total = epoch.partition("/")
                if done.isdigit():
                    self.bar.update(
                        self.lines[job.number], completed=int(done), total=int(total) if total else None, line=numbers
                    )


@contextmanager
def _display(console: Console, total: int) -> Iterator[_Display]:
    display = _Display(console, total)
    with display.bar or ExitStack():
        yield display


def end_with_parent() -> None:
    """In a job: end as if stopped, with a saved state, once the sweep's process is gone, however it went."""
    if (descriptor := os.environ.pop(LIFELINE, None)) is None:
        return
    alive: IO[bytes] = os.fdopen(int(descriptor), "rb", buffering=0)

    def wait() -> None:
        alive.read(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def best_of_search(folder: Path) -> str:
    """What Optuna has found, by the metric that chooses models, as words for the command line; empty for other sweeps."""
    path = folder / "optimization_results.yaml"
    found = read_yaml(path) if path.exists() else {}
    words = " ".join(f"{name}={show(value)}" for name, value in (found.get("best_params") or {}).items())
    return f"{words}  ({found['best_value']:.4f} in validation)" if words else ""


def check_direction(jobs: Sequence[Job], direction: Any) -> None:
    """Refuse to look for the largest loss, or for the smallest accuracy."""
    names = {str(job.result["monitor"]) for job in jobs if job.result.get("monitor")}
    for name in names if direction is not None and not isinstance(direction, list | ListConfig) else ():
        right = "maximize" if larger_is_better(name) else "minimize"
        if right != getattr(direction, "name", direction):
            raise UsageError(f"the best model of a job is chosen by {name}: add hydra.sweeper.direction={right}")


current: Sweep | None = None  # the sweep that this process runs
