"""The end of a run on request: a signal is heard, and all ranks stop after the same step."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from recipes.launch import parent, ranks
from recipes.launch import slurm_job as slurm


class Stopped(Exception):
    """The user or the system asked the run to end."""


class StopOnSignal:
    """While entered, the first Ctrl-C, SIGTERM or loss of the terminal asks for an end after the step in flight; a second Ctrl-C
    ends at once.

    In a Slurm job so do SIGUSR1 and SIGUSR2, after which it comes back.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in ranks.asking():
                self._previous[number] = signal.signal(number, self._handle) or signal.SIG_DFL
        for name in slurm.received:
            self._ask(name)
        return self

    def hears(self) -> None:
        """From now on there are steps after which the run can end: the end of the process that has started it asks for that, too."""
        parent.ends_by(signal.SIGTERM)

    def hears_no_more(self) -> None:
        """There is nothing left to be saved: the end of that process ends this one."""
        parent.ends_by(signal.SIGKILL)

    def _ask(self, name: str) -> None:
        """Take the signal that has most to say: a job that is to come back may be told to end, too."""
        self.requested = max(self.requested or name, name, key=slurm.SIGNALS.index)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested and number == signal.SIGINT:
            raise Stopped(name)
        self._ask(name)
        if ranks.rank() == 0 and not ranks.is_watched():
            with suppress(OSError):  # the terminal is lost
                os.write(2, ranks.STOPPING)  # print is not for signal handlers

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class Agreement:
    """The largest number that any process of a run has told at a step, known to all of them at the next one.

    Nobody waits for the answer, neither the processes for each other nor they for their devices: it travels beside the
    gradients of the step, between the CPUs.
    """

    def __init__(self) -> None:
        self.group: Any = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        self.told: torch.Tensor | None = None
        self.answer: Any = None

    def largest(self, number: int) -> int:
        """What all had told when this was last called; tells `number` for the next time."""
        before = self.last()
        self.told = torch.tensor(number)
        self.answer = dist.all_reduce(self.told, dist.ReduceOp.MAX, group=self.group, async_op=True)
        return before

    def last(self) -> int:
        """The answer that is still on its way, 0 where there is none."""
        if self.told is None:
            return 0
        self.answer.wait()
        told, self.told = int(self.told), None
        return told
