"""The jobs of a sweep: each a process of its own, several at a time, none twice.

A sweep's folder holds `jobs.yaml` (the words it was started with, and those of each job) and `sweep.log`; each job has a
folder with `output.log` beside what a run leaves. A job is known by its words: whatever interrupted a sweep, going on with
it keeps the jobs that are finished, resumes those that left a checkpoint and starts the others again.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.console import Console

from plugins.errors import RecipeError
from recipes.config.errors import one_line, printable
from recipes.config.places import check_sweep
from recipes.config.quoting import typed
from recipes.config.run_files import JOBS, LOG, SWEEP_LOG
from recipes.config.settings import expect_jobs
from recipes.launch.display import Display, duration
from recipes.launch.forked import Forked, Warm
from recipes.launch.gpus import accelerators, deal, have_room
from recipes.launch.job import Job, Process, Running, check_job, explained, reason, start_job, summary, told_before, words_of
from recipes.launch.ranks import cores_here, threads_of
from recipes.launch.room import Room
from recipes.launch.signals import collect_signals
from recipes.launch.source import Listed, Source
from recipes.store.claim import remove_run
from recipes.store.files import hold, is_held, open_to_append, unwritable
from recipes.store.folder import write_result
from recipes.store.plan import Plan, expect_sweep_or_empty

LOOK = 0.05  # seconds between two looks at the jobs
PATIENCE = 60.0  # seconds for a job of an earlier, killed process to save its state and end


class Sweep:
    """A sweep in its folder.

    Args:
        folder: the sweep's folder.
        plan: the words it was started with; the jobs of an earlier start are taken over.
        command: what starts a job, up to its words.
        n_jobs: jobs at a time; -1: as many as the GPUs take, or a process a CPU core where there is no GPU.
        jobs_per_gpu: the most jobs that share a GPU; 1: any number, where n_jobs is not -1.
        start: fresh: each job imports all that it needs | warm: it is a fork of a process that has, where that is possible.
    """

    END = signal.SIGTERM  # sent to a job that is given up

    def __init__(
        self, folder: Path, plan: Plan, command: Sequence[str], n_jobs: int = 1, start: str = "fresh", jobs_per_gpu: int = 1
    ) -> None:
        expect_jobs(n_jobs)
        if jobs_per_gpu > 1 and not accelerators():
            raise RecipeError(
                f"hydra.launcher.jobs_per_gpu={jobs_per_gpu}: this machine has no GPU; for jobs on the CPU type hydra.launcher.n_jobs={cores_here()}"
            )
        expect_sweep_or_empty(folder)
        self.folder, self.plan, self.command = folder, plan, list(command)
        self.gpus = accelerators() if n_jobs != 1 else []
        self.n_jobs = n_jobs if n_jobs > 0 else len(self.gpus) * jobs_per_gpu or cores_here()
        self._on_a_gpu = jobs_per_gpu if n_jobs == -1 or jobs_per_gpu > 1 else sys.maxsize  # jobs at a time
        self._on_cores = cores_here() if n_jobs == -1 and not self.gpus else sys.maxsize  # processes at a time
        self.jobs: list[Job] = []
        self.console = Console()
        at_once = max(cores_here(), len(self.gpus) * jobs_per_gpu)
        self._room = Room(at_once) if self.n_jobs > at_once else None
        self._log_lost = False
        self.make: Callable[[int, list[str]], Job] = lambda number, words: Job(number, folder, words, "")
        self._running: dict[Job, Running] = {}
        self._given_up: set[Job] = set()
        self._held: dict[Job, float] = {}  # jobs that another process holds, and since when they wait for it
        check_sweep(folder)
        self._lock = ExitStack()  # until the process ends
        self._lock.enter_context(hold(folder / SWEEP_LOG, f"works on the sweep in {folder}"))
        self._warm: dict[str | None, Warm] | None = {} if start == "warm" and sys.platform == "linux" else None  # by threads
        self._lifeline = os.pipe()  # never written to: jobs read its end when this process is gone
        if (folder / JOBS).exists():
            plan.jobs = Plan.read(folder).jobs | plan.jobs

    @property
    def failed(self) -> list[Job]:
        """The jobs that ended badly."""
        return [job for job in self.jobs if job.error]

    @property
    def diverged(self) -> list[Job]:
        """The jobs that have diverged: the others are compared with them."""
        return [job for job in self.jobs if job.diverged and not job.error]

    def run(self, jobs: Sequence[Job]) -> None:
        """Run jobs, but for those that are finished; returns when all have ended.

        Raises:
            SystemExit: a signal asked for an end; all jobs have ended, too.
        """
        first = {job.folder: job for job in reversed(jobs)}  # two may have the same words
        self.work(Listed(list(dict.fromkeys(first[job.folder] for job in jobs))))
        for job in jobs:
            job.result, job.error = first[job.folder].result, first[job.folder].error
        self.jobs += [job for job in jobs if first[job.folder] is not job]

    def work(self, source: Source) -> None:
        """Run the jobs that a source gives, but for those that are finished; returns when all have ended.

        Raises:
            SystemExit: a signal asked for an end; all jobs have ended, too.
        """
        waiting: list[Job] = []
        running, self.display = self._running, Display(self.console, source.total)
        with collect_signals(self._pass_on) as received, self.display:
            while waiting or running or not (received or source.is_done()):
                if received:
                    waiting.clear()
                elif more := source.more():
                    for job in more:  # before any of them is started
                        check_job(job.folder)
                    waiting += more
                    self.jobs += more
                    self.plan.write(self.folder)
                while not received and len(running) < self.n_jobs and self._has_room() and (begun := self._next(waiting)):
                    self._begin(begun)
                    if begun not in running:
                        self._tell(source, begun)
                    for number in received if begun in running else ():  # it came while the process was started
                        running[begun].process.send(number)
                for job in [each for each in source.hopeless(running) if each not in self._given_up]:
                    self._given_up.add(job)
                    running[job].process.send(self.END)
                ended_now = [job for job, each in running.items() if each.process.poll() is not None]
                for job in ended_now:
                    ended = running.pop(job)
                    self.display.end(job)
                    if isinstance(ended.process, Forked) and ended.process.lost and not (received or job in self._given_up):
                        ended.process.of.close()
                        self._warm = None  # from now on jobs are started by themselves
                        self.say(f"{job.name}  was lost with the process that it was forked of, and goes on by itself")
                        waiting.insert(0, job)
                        continue
                    self._end(job, ended.process, bool(received))
                    if self._room is not None:
                        self._room.known = True
                    if not received:
                        self._tell(source, job)
                    self.display.done(1)
                    took = duration(time.monotonic() - ended.began)
                    self.say(f"{job.name}  {job.error or summary(job)}  ({took})")
                self.display.show(running)
                if not ended_now:  # else the next one begins at once
                    self._wait()
            if received:
                finished = sum(job.result.get("status") == "finished" for job in self.jobs)
                self.say(f"stopped by {signal.Signals(received[0]).name}; {finished} jobs are finished")
                for line in self._farewell(received[0]):
                    self.say(line)
        if received:
            sys.exit(128 + received[0])

    def _wait(self) -> None:
        """Until a warm process has something to say, or it is time to look at the jobs again."""
        talking = [warm.socket for warm in (self._warm or {}).values() if warm.asked or warm.jobs]
        if talking:
            select.select(talking, [], [], LOOK)
        else:
            time.sleep(LOOK)

    def _tell(self, source: Source, job: Job) -> None:
        """Tell a source that a job has ended. The result of one that was given up says so: it is compared with nothing."""
        source.ended(job)
        ended = job in self._given_up or job.result.get("status") in ("finished", "stopped")
        if (step := source.pruned_at(job)) is not None and ended:
            job.error = ""
            job.result |= {"status": "pruned", "pruned_at": step}
            job.result.pop("error", None)
            with suppress(RecipeError):
                write_result(job.folder, job.result)

    def _has_room(self) -> bool:
        """Whether the memory holds one more job; told once where it does not."""
        if self._room is None:
            return True
        holds, line = self._room.holds([each.process.group for each in self._running.values()], self.n_jobs)
        if line:
            self.say(line)
        return holds

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
        """The first job that finds GPUs or CPU cores, and in whose folder no process is still ending; with an error where one does not end."""
        taken, busy = [each.gpus for each in self._running.values()], sum(job.devices or 1 for job in self._running)
        finds = {
            wanted: have_room(deal(self.gpus, taken, wanted), taken, self._on_a_gpu)
            and (not busy or busy + (wanted or 1) <= self._on_cores)
            for wanted in {job.devices for job in waiting}
        }
        for job in list(waiting):
            if any(job.folder == other.folder for other in self._running):  # the same words: it answers when that has ended
                continue
            if not finds[job.devices]:
                continue
            held = is_held(job.folder / LOG)
            if held and self._held.setdefault(job, time.monotonic()) > time.monotonic() - PATIENCE:
                continue
            waiting.remove(job)
            self._held.pop(job, None)
            job.error = f"another process trains in {job.folder}" if held else ""
            return job
        return None

    def _begin(self, job: Job) -> None:
        """Start a job, unless it is finished, or cannot be started."""
        if job.error or job.has_ended():
            self.display.done(1)
            self.say(f"{job.name}  {job.error or told_before(job)}")
            return
        gpus = deal(self.gpus, [each.gpus for each in self._running.values()], job.devices)
        self._running[job] = Running(self._launch(job, gpus), gpus)
        self.display.start(job, gpus)
        self._log(f"{job.name}  started in {job.folder}")

    def _launch(self, job: Job, gpus: Sequence[str]) -> Process:
        words = words_of(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        if self.n_jobs > 1:
            environment["OMP_NUM_THREADS"] = environment.get("OMP_NUM_THREADS") or threads_of(self.n_jobs * (job.devices or 1))
        if self._warm is None:
            return start_job([*self.command, *words], job.folder, self._lifeline[0], environment)
        threads = environment.get("OMP_NUM_THREADS")
        if threads not in self._warm or not self._warm[threads].lives:
            self._warm[threads] = Warm(self.command[:2], environment)
        return self._warm[threads].start([*self.command[2:], *words], job.folder, self._lifeline[0], environment, job.composed)

    def _pass_on(self, number: int) -> None:
        for each in list(self._running.values()):
            each.process.send(signal.SIGTERM if number == signal.SIGHUP else number)  # it was our terminal, not theirs

    def _end(self, job: Job, process: Process, stopping: bool) -> None:
        """Note how a job ended; where the run could not do so itself, in its result too."""
        job.read()
        if not process.returncode:
            if not job.result and explained(job, self.display.say):
                remove_run(job.folder)
                self.plan.jobs.pop(str(job.folder.relative_to(self.folder)), None)
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
            with suppress(RecipeError):  # the disk may be what failed; then the job is run again as one that was killed
                write_result(job.folder, job.result)

    def _reason(self, job: Job, process: Process) -> str:
        """Why a job ended badly, in a line."""
        return reason(job, int(process.returncode))

    def say(self, line: str) -> None:
        """A line in the log and for the user."""
        self._log(line)
        self.display.say(line)

    def _log(self, line: str) -> None:
        try:
            with open_to_append(self.folder / SWEEP_LOG) as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {printable(line)}\n".encode())
        except OSError as error:  # the jobs may have room elsewhere
            if not self._log_lost:
                self.display.say(f"warning: {one_line(unwritable(self.folder / SWEEP_LOG, error))}")
            self._log_lost = True


current: Sweep | None = None  # the sweep that this process runs
