"""What the seeds and folds of each group say: means, intervals, paired differences. Nothing here imports torch.

A number that the runs do not support is left out instead of being made up: one seed has no deviation, equal differences have
no test, and a run that diverged leaves its group without a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from recipes.compare.groups import Comparison, Group
from recipes.compare.rulers import measured_alike

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
ROUNDING = 1e-12  # relative


@dataclass(frozen=True)
class Row:
    """A group in numbers.

    Attributes:
        group: its runs.
        label: its name.
        baseline: whether it is the group that the others are compared with.
        n: number of runs.
        mean: of the metric over the runs; not a number where a run has none.
        deviation: the standard deviation of a sample, divided by n - 1; None for one run.
        interval: of 95 % confidence for the mean, from Student's t; None where the runs do not scatter.
        pairs: number of seeds that the baseline has too.
        difference: mean over these seeds of the group's metric minus the baseline's.
        difference_interval: of 95 % confidence for the difference, not corrected for several comparisons.
        p: of the paired t-test, two-sided.
        p_corrected: the same after Holm, over all groups that have one.
        seconds: mean training time of a run.
        seconds_ratio: the same as a multiple of the baseline's.
        memory: mean of the runs' peak memory in bytes.
        memory_ratio: the same as a multiple of the baseline's.
    """

    group: Group
    label: str
    baseline: bool
    n: int
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    pairs: int
    difference: float | None
    difference_interval: tuple[float, float] | None
    p: float | None
    p_corrected: float | None
    seconds: float
    seconds_ratio: float | None
    memory: float
    memory_ratio: float | None

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 5 %."""
        return self.p_corrected is not None and self.p_corrected < SIGNIFICANT


def rows(comparison: Comparison) -> list[Row]:
    """A row for each group, in the order of the groups."""
    baseline = comparison.baseline
    found = [_row(group, baseline, comparison.metric) for group in comparison.groups]
    corrected = holm([row.p for row in found])
    return [replace(row, p_corrected=p) for row, p in zip(found, corrected, strict=True)]


def _row(group: Group, baseline: Group, metric: str) -> Row:
    values = np.array(list(group.metric(metric).values()))
    seconds, memory = average(group, "seconds"), average(group, "peak_memory")
    ours, theirs = pairs(group, baseline, metric) if group is not baseline else (np.array([]), np.array([]))
    difference = ours - theirs
    known = len(difference) > 0 and bool(np.isfinite(difference).all()) and measured_alike(group, baseline, metric)
    scale = max(np.abs(ours).max(), np.abs(theirs).max()) if known else None
    return Row(
        group=group,
        label=group.label,
        baseline=group is baseline,
        n=len(values),
        mean=float(values.mean()) if np.isfinite(values).all() else math.nan,
        deviation=float(values.std(ddof=1)) if len(values) > 1 and np.isfinite(values).all() else None,
        interval=interval(values, shared=group.shared),
        pairs=len(difference),
        difference=float(difference.mean()) if known else None,
        difference_interval=interval(difference, scale, group.shared) if known else None,
        p=p_value(difference, group.shared) if known and scatters(difference, scale) else None,
        p_corrected=None,
        seconds=seconds,
        seconds_ratio=_ratio(seconds, average(baseline, "seconds")),
        memory=memory,
        memory_ratio=_ratio(memory, average(baseline, "peak_memory")),
    )


def pairs(group: Group, baseline: Group, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The metric of a group and of the baseline, for each seed, or seed and fold, that both have; other folds are no pair of these."""
    ours, theirs = group.metric(metric), baseline.metric(metric)
    same_folds = {run.cut for run in group.runs} == {run.cut for run in baseline.runs}
    seeds = [seed for seed in ours if seed in theirs and same_folds]
    return np.array([ours[seed] for seed in seeds]), np.array([theirs[seed] for seed in seeds])


def p_value(difference: np.ndarray, shared: float = 0.0) -> float:
    """Of the paired t-test, two-sided: t = mean / (s √(1/n + shared)), with n − 1 degrees of freedom.

    Runs on folds have most of their training samples in common, so their differences scatter less than those of new data would. With
    shared = test samples / training samples this is the corrected resampled t-test of Nadeau and Bengio, "Inference for the
    generalization error", Machine Learning 52, 2003; with 0 it is Student's.

    Args:
        difference: of each pair, (n,), n ≥ 2.
        shared: ≥ 0.
    """
    n = len(difference)
    t = float(difference.mean()) / (float(difference.std(ddof=1)) * math.sqrt(1 / n + shared))
    return float(2 * stats.t.sf(abs(t), n - 1))


def interval(values: np.ndarray, scale: float | None = None, shared: float = 0.0) -> tuple[float, float] | None:
    """Student's interval of 95 % confidence for the mean; None where the values do not scatter or are no numbers.

    Args:
        values: of which.
        scale: how large the numbers are of which rounding is told.
        shared: as of :func:`p_value`.
    """
    if not scatters(values, scale):
        return None
    half = interval_factor(len(values), shared) * float(values.std(ddof=1))
    return float(values.mean()) - half, float(values.mean()) + half


def interval_factor(n: int, shared: float = 0.0) -> float:
    """Half the width of the interval for the mean of n values, in standard deviations; `shared` as of :func:`p_value`."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * math.sqrt(1 / n + shared)


def scatters(values: np.ndarray, scale: float | None = None) -> bool:
    """Whether there are several numbers that differ by more than what rounding does to numbers as large as `scale`."""
    if len(values) < 2 or not np.isfinite(values).all():
        return False
    scale = float(np.abs(values).max()) if scale is None else scale
    return bool(np.ptp(values) > ROUNDING * scale)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    r"""P-values corrected for being several, after Holm (1979): a step down from Bonferroni's correction.

    With the m p-values in ascending order, p̃ᵢ = max over j ≤ i of min(1, (m - j + 1) pⱼ). Those that are None stay None and
    count for nothing.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[place] = largest
    return corrected


def average(group: Group, name: str) -> float:
    """Mean over a group's runs of a number in their results; not a number where a run has none."""
    return float(np.mean([float(run.result.get(name) or math.nan) for run in group.runs]))


def _ratio(value: float, baseline: float) -> float | None:
    ratio = value / baseline if baseline else math.nan
    return ratio if math.isfinite(ratio) else None
