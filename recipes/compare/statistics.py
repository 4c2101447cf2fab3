"""What the seeds and folds of each group say: means, intervals, paired differences. Nothing here imports torch.

A number that the runs do not support is left out instead of being made up: one seed has no deviation, equal differences have
no test, and a run that diverged leaves its group without a mean. Several seeds on the same folds bring no new test samples: where runs
are on several folds, the mean over the seeds of each counts as one number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from recipes.compare.groups import Comparison, Group, independent, several_folds
from recipes.compare.rulers import measured_alike
from recipes.compare.runs import Replicate

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
        mean: of the metric over the runs, or over the means of several folds; not a number where a run has none.
        deviation: the standard deviation of single runs, divided by n - 1, also on several folds; None for one run.
        interval: of 95 % confidence for the mean, from Student's t, of several folds from their means; None where these do not scatter.
        pairs: number of runs of which the baseline has one with the same seed and fold.
        difference: mean over these, or over their means in several folds, of the group's metric minus the baseline's.
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
    values = group.metric(metric)
    runs, drawn = np.array([*values.values()]), np.array(independent(values))
    is_known = bool(np.isfinite(runs).all())
    seconds, memory = average(group, "seconds"), average(group, "peak_memory")
    both = pairs(group, baseline, metric) if group is not baseline else {}
    difference = np.array(independent({replicate: ours - theirs for replicate, (ours, theirs) in both.items()}))
    known = len(both) > 0 and bool(np.isfinite(difference).all()) and measured_alike(group, baseline, metric)
    scale = float(np.abs([*both.values()]).max()) if known else None
    cut, forward = group.runs[0].folds, group.runs[0].forward
    shared = overlap(several_folds(both), cut, forward)
    return Row(
        group=group,
        label=group.label,
        baseline=group is baseline,
        n=len(runs),
        mean=float(drawn.mean()) if is_known else math.nan,
        deviation=float(runs.std(ddof=1)) if len(runs) > 1 and is_known else None,
        interval=interval(drawn, shared=overlap(group.folds, cut, forward)),
        pairs=len(both),
        difference=float(difference.mean()) if known else None,
        difference_interval=interval(difference, scale, shared) if known else None,
        p=p_value(difference, shared) if known and scatters(difference, scale) else None,
        p_corrected=None,
        seconds=seconds,
        seconds_ratio=_ratio(seconds, average(baseline, "seconds")),
        memory=memory,
        memory_ratio=_ratio(memory, average(baseline, "peak_memory")),
    )


def pairs(group: Group, baseline: Group, metric: str) -> dict[Replicate, tuple[float, float]]:
    """The metric of a group and of the baseline, for each seed, or seed and fold, that both have; other folds are no pair of these."""
    ours, theirs = group.metric(metric), baseline.metric(metric)
    same_folds = {run.cut for run in group.runs} == {run.cut for run in baseline.runs}
    return {seed: (ours[seed], theirs[seed]) for seed in ours if seed in theirs and same_folds}


def overlap(there: Iterable[int], folds: int, forward: bool) -> float:
    """Test samples a training sample, 1 / (folds − 1); where folds go forward in time, and fold k is trained on k + 1 pieces, the mean of 1 / (k + 1).

    Args:
        there: the folds that runs are on; of none it is 0.
        folds: into how many the data was cut.
        forward: whether they go forward in time.
    """
    ratios = [1 / (fold + 1 if forward else folds - 1) for fold in there]
    return sum(ratios) / len(ratios) if ratios else 0.0


def p_value(difference: np.ndarray, shared: float = 0.0) -> float:
    """Of the paired t-test, two-sided: t = mean / (s √(1/n + shared)), with n − 1 degrees of freedom.

    Folds have most of their training samples in common, so their differences scatter less than those of new data would. With
    shared = test samples / training samples this is the corrected resampled t-test of Nadeau and Bengio, "Inference for the
    generalization error", Machine Learning 52, 2003; with 0 it is Student's.

    Args:
        difference: of each seed, or of each fold as a mean over its seeds, (n,), n ≥ 2.
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
