"""What a person sees of a sweep: a bar, a line for each running job, and what is said."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from recipes.config.errors import printable
from recipes.config.invoked import as_typed
from recipes.launch.job import Job

MOST = 12  # jobs that have a line


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class Display:
    """On a terminal a bar for the sweep and a line for each running job; elsewhere nothing but the lines that are said."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.lines: dict[int, Any] = {}
        self.unseen: dict[int, str] = {}  # running jobs without a line: the screen, and looking at their files, has an end
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

    def __enter__(self) -> Display:
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
            self.unseen[job.number] = printable(f"  {job.name}{where}")
            self._fill()

    def end(self, job: Job) -> None:
        """A job runs no more: it has ended, or goes on later."""
        if self.bar:
            self.unseen.pop(job.number, None)
            if job.number in self.lines:
                self.bar.remove_task(self.lines.pop(job.number))
            self._fill()

    def _fill(self) -> None:
        """Give lines to running jobs, the earliest first, as long as there is room."""
        while self.bar and self.unseen and len(self.lines) < MOST:
            number = next(iter(self.unseen))
            self.lines[number] = self.bar.add_task(self.unseen.pop(number), total=None, line="")

    def show(self, running: Iterable[Job]) -> None:
        """What the running jobs have printed last."""
        if not self.bar or time.monotonic() < self.shown + 0.25:
            return
        self.shown = time.monotonic()
        self.bar.update(self.total, line=f"and {len(self.unseen)} more are running" if self.unseen else "")
        for job in (job for job in running if job.number in self.lines):
            epoch, _, numbers = job.last_line("epoch ").removeprefix("epoch ").partition("  ")
            done, _, total = epoch.partition("/")
            if done.isdigit():
                total_epochs = int(total) if total else None
                self.bar.update(self.lines[job.number], completed=int(done), total=total_epochs, line=numbers)
        self.bar.refresh()
