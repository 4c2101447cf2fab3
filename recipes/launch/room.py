"""Whether the memory of this machine holds another job, by what the jobs before it were seen to take. Nothing here imports torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from recipes.launch.memory import available

SPARE = 1.2  # of what a job was seen to take; it may take more
EVERY = 0.5  # seconds between two looks


def of_its_own(number: int) -> float:
    """Bytes that a process shares with no other one."""
    with suppress(OSError, ValueError):
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(float(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 0.0


def _processes() -> dict[int, tuple[int, int]]:
    """The number of each process' parent and of its process group."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            above, group = path.read_text(errors="replace").rpartition(")")[2].split()[1:3]
            found[int(path.parent.name)] = int(above), int(group)
    return found


class Room:
    """How much the jobs of a sweep take, each with all its processes.

    Args:
        cores: as many jobs are started in any case.
    """

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.most = 0.0  # bytes that a job was seen to take
        self.known = False  # whether one of them has ended, and so shown what it takes
        self._now: list[float] = []
        self._looked = 0.0
        self._told = False

    def holds(self, groups: Sequence[int | None], wanted: int) -> tuple[bool, str]:
        """Whether one more job fits beside those that run, and a line where it does not, the first time.

        Before one has ended there are as many as cores.

        Args:
            groups: the process groups of the jobs that run.
            wanted: the number of jobs that are to run at a time.
        """
        running = len(groups)
        self._look(groups)
        if running < self.cores:
            return True, ""
        if not self.known:
            return False, ""
        to_come = sum(max(0.0, self.most - now) for now in self._now) + self.most * max(0, running - len(self._now))
        free = available()
        if free > to_come + SPARE * self.most:
            return True, ""
        told, self._told = self._told, True
        line = f"{running} jobs at a time in place of {wanted}: a job takes {self.most / 1e9:.2f} GB, and {free / 1e9:.1f} GB of memory are free"
        return False, "" if told else line

    def _look(self, groups: Sequence[int | None]) -> None:
        """See what running jobs take."""
        if time.monotonic() < self._looked + EVERY:
            return
        taken = {group: 0.0 for group in groups if group is not None}
        found = _processes()
        for number, (above, group) in found.items():
            while group not in taken and above in found:  # ranks have groups of their own
                above, group = found[above]
            if group in taken:
                taken[group] += of_its_own(number)
        self._now = list(taken.values())
        self.most = max([self.most, *self._now])
        self._looked = time.monotonic()
