"""Where the jobs of a sweep come from: a list, or a search that chooses the next ones by what the others have found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from recipes.launch.job import Job


class Source(Protocol):
    """What gives jobs.

    Attributes:
        total: how many there will be, as far as that is known.
    """

    total: int

    def more(self) -> list[Job]:
        """The jobs that can be started now; each is given once."""

    def is_done(self) -> bool:
        """Whether no job comes any more."""

    def ended(self, job: Job) -> None:
        """Hear of the end of a job, also where it had ended before."""

    def hopeless(self, running: Iterable[Job]) -> list[Job]:
        """Of the running jobs those that are to be given up."""

    def pruned_at(self, job: Job) -> int | None:
        """The step at which a job was given up; None: it was not."""


class Listed:
    """Jobs that are known from the start."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs, self.total = jobs, len(jobs)

    def more(self) -> list[Job]:
        """All of them, the first time."""
        found, self.jobs = self.jobs, []
        return found

    def is_done(self) -> bool:
        """Whether all were given."""
        return not self.jobs

    def ended(self, job: Job) -> None:
        """Nothing follows from it."""

    def hopeless(self, running: Iterable[Job]) -> list[Job]:
        """None."""
        return []

    def pruned_at(self, job: Job) -> int | None:
        """None of them is."""
        return None
