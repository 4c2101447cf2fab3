"""A search: which trial comes next, which is hopeless, and what was found. Optuna decides; it is imported where it is needed.

With one trial at a time all of it is a function of the sampler's seed and of what the jobs have left, in this order. So a search that was
interrupted goes on by asking for the same trials again: those that have ended answer at once, with the numbers they logged on their way.
What was finished stays so, beside whatever trials it is seen this time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config.run_files import METRICS, STUDY
from recipes.launch.job import Job
from recipes.launch.objectives import mean_of, sign_of
from recipes.launch.space import SEED, Space
from recipes.launch.unjudged import KEPT, STUDY_NAME, UNJUDGED, unjudged
from recipes.store.plan import is_journal
from recipes.store.shapes import numbers_of

EVERY = 0.1  # seconds between two looks at whether running trials have logged


@dataclass(eq=False)
class Trial:
    """A setting that is tried, with a job for each seed."""

    asked: Any  # of Optuna's
    words: list[str]
    seeds: list[str]  # that are still to be trained
    jobs: list[Job] = field(default_factory=list)
    seen: int = -1  # the last step that was reported
    size: int = -1  # of the file that it was read from
    pruned_at: int | None = None
    pruned: Job | None = None  # the job by which it was given up
    ended: int = 0  # jobs
    failed: bool = False  # in a job, which is more than to have diverged
    told: bool = False


class Search:
    """The jobs of a search, one trial after the other.

    Args:
        settings: those of `hydra.sweeper`.
        space: what is searched.
        make: a job of its number and words.
        folder: of the sweep.
        at_a_time: trials that run at a time.
        sampler: Optuna's.
        pruner: Optuna's; None: each trial is trained to its end.
        seconds: the time after which no trial is begun any more.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        space: Space,
        make: Callable[[int, list[str]], Job],
        folder: Path,
        at_a_time: int,
        sampler: Any,
        pruner: Any,
        seconds: float | None = None,
    ) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        self.space, self.make, self.at_a_time, self.pruner = space, make, max(1, at_a_time), pruner
        self.objectives: list[str] = list(settings["objectives"] or [])
        self.directions: list[str | None] = list(settings["direction"] or [])
        self.total, self.repeats = settings["n_trials"], settings["repeats"]
        self.failures_allowed = settings["max_failure_rate"]
        self.until = None if seconds is None else time.monotonic() + seconds
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # only with one trial at a time does the same come before each trial again
        self.unjudged = unjudged(folder / STUDY) if self.at_a_time == 1 else []
        # It is written anew: the jobs are what is kept. The lock that a killed search held would be waited for; it links to the path given here.
        for left in filter(is_journal, folder.glob("*")):
            left.unlink()
        backend = JournalFileBackend(str((folder / STUDY).absolute()))
        count = max(1, len(self.objectives))
        self.study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            sampler=sampler,
            pruner=pruner,
            study_name=STUDY_NAME,
            directions=["maximize"] * count,
        )
        self.study.set_user_attr(UNJUDGED, self.unjudged)
        self.expect: Callable[[Mapping[str, Any]], None] = lambda result: (
            None
        )  # of the result of each job that a trial is judged by
        self.refused: RecipeError | None = None  # why no further trial is begun
        self.trials: list[Trial] = []
        self.repeated: list[Job] = []
        self._of: dict[Job, Trial] = {}
        self._number = 0
        self._looked = 0.0

    # ------------------------------------------------------------------ for the sweep

    def more(self) -> list[Job]:
        """The jobs that can be started now."""
        waiting = [trial for trial in self.trials if not trial.told]
        found: list[Job] = []
        for trial in waiting:
            if trial.seeds and trial.ended == len(trial.jobs):
                found += self._jobs(trial)
        if found or len(waiting) >= self.at_a_time or self._is_over():
            return found
        if len(self.trials) < self.total:
            asked = self.study.ask(self.space.dimensions)
            trial = Trial(asked, self.space.words(asked.params), list(self.space.seeds))
            self.trials.append(trial)
            return self._jobs(trial)
        return []

    def is_done(self) -> bool:
        """Whether no job comes any more."""
        waiting = any(not trial.told for trial in self.trials)
        return not waiting and (self._is_over() or len(self.trials) >= self.total)

    def ended(self, job: Job) -> None:
        """Hear of the end of a job."""
        trial = self._of.get(job)
        if trial is None:
            return
        trial.ended += 1
        known = bool(job.error or job.result)  # else it was only explained
        trial.failed |= job.score is None and known and job.result.get("status") not in ("diverged", "pruned")
        if trial.told:
            return
        self._report(trial, job if job.result.get("status") == "pruned" else None)
        if trial.pruned_at is not None:
            self._tell(trial, "PRUNED")
        elif job.score is None:
            self._tell(trial, "FAIL")
        elif not trial.seeds and all(other.score is not None for other in trial.jobs):
            self._tell(trial, "COMPLETE")
        elif job is trial.jobs[0]:
            trial.asked.set_user_attr(KEPT, True)
        self.unjudged = [params for params in self.unjudged if params != trial.asked.params]

    def hopeless(self, running: Iterable[Job]) -> list[Job]:
        """The running jobs of trials that are given up."""
        if time.monotonic() < self._looked + EVERY:
            return []
        self._looked = time.monotonic()
        found = []
        for job in running:
            trial = self._of.get(job)
            if trial is not None and not trial.told:
                job.read()
                self._report(trial)
                if trial.pruned_at is not None:
                    found.append(job)
        return found

    def pruned_at(self, job: Job) -> int | None:
        """The step at which the job was given up, and its trial by it; None: it was not."""
        trial = self._of.get(job)
        return None if trial is None or job is not trial.pruned else trial.pruned_at

    @property
    def ended_early(self) -> str:
        """In a line, that trials are left out because of others that have failed; empty if none are."""
        ended = [trial for trial in self.trials if trial.told]
        failed = sum(trial.failed and trial.pruned_at is None for trial in ended)
        if len(self.trials) >= self.total or failed <= self.failures_allowed * max(1, len(ended)):
            return ""
        told = f"{failed} of {len(ended)} have failed (hydra.sweeper.max_failure_rate={self.failures_allowed:g})"
        return f"no further trial is begun: {told}"

    # ------------------------------------------------------------------ what was found

    @property
    def best(self) -> Trial | None:
        """The trial with the best value; of several objectives the first of those that no other one beats."""
        with suppress(ValueError):
            numbers = [trial.number for trial in self.study.best_trials]
            return next((trial for trial in self.trials if trial.asked.number in numbers), None)
        return None

    def again(self) -> list[Job]:
        """The best trial with fresh seeds: jobs that nothing was chosen by."""
        best = self.best
        if best is None or not self.repeats or self.repeated:
            return []
        used = [int(seed) for trial in self.trials for job in trial.jobs if isinstance(seed := job.result.get("seed"), int)]
        first = max(used, default=0) + 1
        words = [word for word in best.words if word.lstrip("+").partition("=")[0] != SEED]
        self.repeated = [self._job([*words, f"seed={first + number}"]) for number in range(self.repeats)]
        return self.repeated

    # ------------------------------------------------------------------ the parts

    def _is_over(self) -> bool:
        return (self.until is not None and time.monotonic() > self.until) or bool(self.ended_early or self.refused)

    def _jobs(self, trial: Trial) -> list[Job]:
        """The next jobs of a trial: of one that may be given up the first one by itself."""
        prunes = self.pruner is not None and not trial.jobs
        seeds, trial.seeds = (trial.seeds[:1], trial.seeds[1:]) if prunes else (trial.seeds, [])
        made = [self._job([*trial.words, *([seed] if seed else [])]) for seed in seeds or ([""] if not trial.jobs else [])]
        for job in made:
            self._of[job] = trial
        trial.jobs += made
        return made

    def _job(self, words: list[str]) -> Job:
        self._number += 1
        return self.make(self._number - 1, words)

    def _report(self, trial: Trial, pruned: Job | None = None) -> None:
        """Tell Optuna what the first job of a trial has logged since the last look, step by step, until it gives the trial up.

        Args:
            trial: that is looked at.
            pruned: a job of it that says that it was given up: by a technique, or in an earlier start of the search, beside other
                trials than now.
        """
        if trial.pruned_at is not None:
            return
        given_up = None if pruned is None else pruned.result.get("pruned_at")
        self._read(trial, given_up)
        if given_up is not None:
            trial.pruned_at, trial.pruned = given_up, pruned

    def _read(self, trial: Trial, given_up: int | None) -> None:
        job = trial.jobs[0]
        name = str(job.result.get("monitor", ""))
        if self.pruner is None or not name:  # a run does not know it from the first moment on
            return
        try:
            size = (job.folder / METRICS).stat().st_size
            rows = list(numbers_of(job.folder / METRICS)) if size != trial.size else []
        except (OSError, RecipeError):  # it is being written
            return
        trial.size = size
        stays = job.was_finished and trial.asked.params not in self.unjudged
        for row in rows:
            step, value = int(row["step"]), row.get(name)
            if not value or step <= trial.seen or (given_up is not None and step > given_up):
                continue
            trial.seen = step
            trial.asked.report(sign_of(job, name, self._direction(0)) * float(value), step)
            hopeless = trial.asked.should_prune()  # asked each time: Optuna keeps what others compete with
            if hopeless and given_up is None and not stays:
                trial.pruned_at, trial.pruned = step, job
                return

    def _direction(self, place: int) -> str | None:
        return self.directions[place] if place < len(self.directions) else None

    def _tell(self, trial: Trial, state: str) -> None:
        from optuna.trial import TrialState

        trial.told = True
        trial.seeds = []
        for job in trial.jobs:
            if job.score is not None or job is trial.pruned:  # any other has no say, and may have left half a result
                try:
                    self.expect(job.result)
                except RecipeError as error:  # told once those that run have ended: some would go on in a queue
                    self.refused = self.refused or error
        values = None
        if state == "COMPLETE":
            names = self.objectives or [str(trial.jobs[0].result.get("monitor"))]
            means = [mean_of(trial.jobs, name, self._direction(place)) for place, name in enumerate(names)]
            values = [mean for mean in means if mean is not None]
            if len(values) < len(means):  # NaN: no trial is better or worse than this one
                state, values = "FAIL", None
        for job in trial.jobs:
            trial.asked.set_user_attr(f"job {job.number}", job.name)
        try:
            self.study.tell(trial.asked, values, state=TrialState[state])
        except RuntimeError as error:
            # A grid at its end asks Optuna's own loop to stop; the trial is noted all the same.
            if "Study.stop" not in str(error):
                raise
