"""What a search judges its trials by: the metric that chooses the best model, or what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from plugins.directions import larger_is_better
from plugins.errors import RecipeError
from recipes.launch.job import Job
from recipes.store.phase_results import SEEN

OF_A_RUN = ("steps", "seconds", "peak_memory", "parameters")  # objectives that are no metric; less is better


def value_of(job: Job, name: str) -> float | None:
    """An objective of a job; None where it has no number, or was not trained to its end."""
    found = job.result.get("metrics", {}).get(name, job.result.get(name) if name in OF_A_RUN else None)
    return None if found is None or job.error or job.result.get("status") != "finished" else float(found)


def sign_of(job: Job, name: str, given: str | None) -> float:
    """What makes larger values of an objective the better ones.

    Args:
        job: which has it.
        name: of the objective.
        given: maximize | minimize, as was typed; None: as is known.

    Raises:
        RecipeError: the opposite is known, or nothing.
    """
    larger = False if name in OF_A_RUN else larger_is_better(name, job.result.get("directions"))
    if given is not None and larger is not None and (given == "maximize") != larger:
        right = "maximize" if larger else "minimize"
        raise RecipeError(
            f"hydra.sweeper.direction={given}: of {name} the {'largest' if larger else 'smallest'} value is best: type "
            f"hydra.sweeper.direction={right}, or leave it out"
        )
    if given is None and larger is None:
        raise RecipeError(
            f"whether a larger or a smaller {name} is better is not known: type hydra.sweeper.direction=maximize or minimize"
        )
    return 1.0 if (larger if larger is not None else given == "maximize") else -1.0


def mean_of(jobs: Sequence[Job], name: str, given: str | None) -> float | None:
    """The mean of an objective over finished jobs, larger being better; None where one of them has NaN there.

    Raises:
        RecipeError: they have no such metric, or it cannot judge them.
    """
    if any((job.result.get("rulers") or {}).get(name, {}).get(SEEN) for job in jobs):
        raise RecipeError(
            f"the jobs of this search would be judged by {name} of samples that their last phase has trained on: search with "
            f"+stopping=early, and train what is found with what was typed"
        )
    for job in jobs:
        there = job.result.get("metrics", {})
        if name not in there and (name not in OF_A_RUN or job.result.get(name) is None):
            raise RecipeError(
                f"hydra.sweeper.objectives: {name} is no metric of these runs; there are {', '.join(sorted(there))}, "
                f"{', '.join(OF_A_RUN)}"
            )
    found = [(job, value_of(job, name)) for job in jobs]
    signed = [sign_of(job, name, given) * value for job, value in found if value is not None]
    return fmean(signed) if len(signed) == len(jobs) else None
