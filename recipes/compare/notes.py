"""What a careful reader must be told before the table is believed. Nothing here imports torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from recipes.compare.groups import Comparison
from recipes.compare.rulers import about_rulers, measured_alike
from recipes.compare.runs import Replicate, Run, named
from recipes.compare.statistics import ROUNDING, Row, interval_factor, overlap, pairs, rows
from recipes.config.quoting import quote

ENOUGH = 5  # seeds, or folds
FIRST = "0,1,2,3,4"  # so many
SEEDS = f"seed={FIRST}"
MANY_GROUPS = 5
LISTED = 3  # labels in a sentence
_DIRTY = " (+: with changes that are not committed)."


def notes(comparison: Comparison, finished: Sequence[Run]) -> list[str]:
    """A sentence for each thing that makes the numbers say less than they seem to; `finished` has runs of one seed twice too."""
    table = rows(comparison)
    return [
        *_about_groups(comparison),
        *_about_history(comparison),
        *_about_tuning(comparison),
        *_about_failures(comparison),
        *_about_seeds(comparison, table, finished),
        *_about_folds(comparison),
        *_about_equal_numbers(comparison, table),
        *_about_losses(comparison),
        *about_rulers(comparison),
        *_about_choices(comparison, table),
        *_about_circumstances(comparison),
    ]


def _about_groups(comparison: Comparison) -> Iterator[str]:
    if len(comparison.groups) == 1:
        yield f"There is one group only. For a comparison: {_sweep_of(comparison.groups[0].runs[0])}"


def _about_history(comparison: Comparison) -> Iterator[str]:
    if changed := [group.label for group in comparison.groups if group.runs[0].resumed]:
        yield f"{_labels(changed)}: changed on the way, by a resume with other words, so no run of one command; a group of its own."


def _about_tuning(comparison: Comparison) -> Iterator[str]:
    """What a finder has set before each run."""
    told, key = [], ""
    for group in comparison.groups:
        found = [tuned for run in group.runs if (tuned := run.result.get("tuned"))]
        if values := sorted({float(each["value"]) for each in found}):
            key = str(found[0]["key"])
            told.append(
                f"{shorten(group.label)} {' to '.join(f'{value:g}' for value in (values[0], values[-1])[: len(values)])}"
            )
    if told:
        yield f"{key} was found before each run, which is part of its time: {_listed(told, ' · ')}."


def _sweep_of(run: Run) -> str:
    """A command that trains what this run trained, and something else to compare it with."""
    words = [str(word) for word in run.result.get("command", [])]
    regularized = run.options.get("regularizer") or any("regularizer" in word.partition("=")[0] for word in words)
    added = "optimizer=sgd,adam" if regularized else "+regularizer=[],[l2]"  # which every model takes
    dropped = ("seed", added.lstrip("+").partition("=")[0])
    kept = [word for word in words if word.lstrip("+").partition("=")[0].split(".")[0] not in dropped]
    return "python train.py -m " + " ".join(quote(word) for word in [*kept, added, SEEDS])


def _about_failures(comparison: Comparison) -> Iterator[str]:
    missing = comparison.unfinished
    if missing:
        hit = [group.label for group in comparison.groups if any(run.values == group.values for run in missing)]
        of = f" Without them {_labels(hit)} may look better than it is." if hit else ""
        yield f"{_count(missing, 'run is', 'runs are')} not finished and not in the table: {statuses(missing)}.{of}"
    lacking = []
    for group in comparison.groups:
        values = group.metric(comparison.metric)
        diverged = [run.replicate for run in group.runs if run.status == "diverged"]
        if diverged:
            of = _count(list(values), "run", "runs")
            lacking.append(
                f"{shorten(group.label)}: {len(diverged)} of {of} diverged ({_seeds(diverged)}), so there is no mean; to leave them "
                f"out would flatter."
            )
        elif bad := [seed for seed, value in values.items() if not math.isfinite(value)]:
            lacking.append(
                f"{shorten(group.label)}: {len(bad)} of {_count(list(values), 'run', 'runs')} gave no number for "
                f"{comparison.metric} ({_seeds(bad)}), so there is no mean; to leave them out would flatter."
            )
    yield from lacking[:LISTED]
    if len(lacking) > LISTED:
        yield f"So it is for {len(lacking) - LISTED} further groups: runs that gave no number for {comparison.metric}."


def _about_seeds(comparison: Comparison, table: Sequence[Row], finished: Sequence[Run]) -> Iterator[str]:
    counted = {id(run) for run in comparison.runs}
    twice = [run for run in finished if id(run) not in counted]
    if twice:
        hit = [group.label for group in comparison.groups if any(run.values == group.values for run in twice)]
        seeds = sorted({run.replicate for run in twice})
        yield f"{_labels(hit)}: run more than once ({_seeds(seeds)}); the run found last counts."
    single = [row.label for row in table if row.n == 1]
    few = [row for row in table if 1 < row.n < ENOUGH and not row.group.folds]
    few_folds = [row for row in table if 1 < len(row.group.folds) < ENOUGH]
    everybody = len(table)
    if single:
        yield f"{_labels(single, everybody)}: one run says nothing about chance; repeat the command with {SEEDS}"
    if few:
        least = min(row.n for row in few)
        yield (
            f"{_labels([row.label for row in few], everybody)}: few seeds. With {least} an interval is ± {interval_factor(least):.1f} standard "
            f"deviations wide, with {ENOUGH} ± {interval_factor(ENOUGH):.1f}; repeat the command with {SEEDS}"
        )
    if few_folds:  # of which further seeds make none
        fewest = min((row.group for row in few_folds), key=lambda group: len(group.folds))
        run, count = fewest.runs[0], len(fewest.folds)
        cut = max(run.folds, ENOUGH)
        wide = interval_factor(count, overlap(fewest.folds, run.folds, run.forward))
        with_more = interval_factor(ENOUGH, overlap(range(ENOUGH), cut, run.forward))
        yield (
            f"{_labels([row.label for row in few_folds], everybody)}: few folds. With {count} an interval is ± {wide:.1f} standard deviations of "
            f"their means wide, with {ENOUGH} ± {with_more:.1f}; repeat the command with data.folds={cut} data.fold={FIRST}"
        )
    others = [row for row in table if not row.baseline]
    if unpaired := [row.label for row in others if row.pairs == 0]:
        yield f"{_labels(unpaired)}: no seed or fold in common with the baseline, so no difference is given."
    partly = [row for row in others if 0 < row.pairs < max(row.n, len(comparison.baseline.runs)) and row.n > 1]
    if partly:
        pairs = sorted({row.pairs for row in partly})
        span = " to ".join(map(str, [pairs[0], pairs[-1]][: len(pairs)]))
        yield f"{_labels([row.label for row in partly])}: other seeds than the baseline, only {span} in common."
    alike = [row for row in others if measured_alike(row.group, comparison.baseline, comparison.metric)]
    if lacking := [row.label for row in alike if row.pairs and row.difference is None and math.isfinite(row.mean)]:
        yield (
            f"The baseline has no number for every seed, so no difference is given for {_labels(lacking)}; choose another one "
            "with --baseline."
        )


def _about_folds(comparison: Comparison) -> Iterator[str]:
    on_folds = [group for group in comparison.groups if group.folds]
    seeds = "; several seeds of a fold count as one, by their mean" * any(
        len(group.runs) > len(group.folds) for group in on_folds
    )
    for forward, what in (
        (False, ", which have most of their training samples in common"),
        (True, " that go forward in time, each trained on what the ones before it were trained and tested on"),
    ):
        if folds := sorted({group.runs[0].folds for group in on_folds if group.runs[0].forward == forward}):
            yield (
                f"The runs are on folds of the data ({_listed([str(number) for number in folds])}){what}: intervals and p-values are those of "
                f"the corrected resampled t-test (Nadeau and Bengio, 2003){seeds}."
            )


def _about_equal_numbers(comparison: Comparison, table: Sequence[Row]) -> Iterator[str]:
    same = [row for row in table if row.n > 1 and math.isfinite(row.mean) and row.interval is None]
    equal = [row for row in table if row.pairs > 1 and row.difference is not None and row.p is None]
    for one in ("seed", "fold"):
        if gave := [row.label for row in same if row.group.counted == one]:
            yield f"{_labels(gave)}: all {one}s gave one and the same number, so no interval is given."
        alike = [row for row in equal if row.group.counted == one]
        if zero := [row.label for row in alike if _is_the_same(row, comparison)]:
            yield f"{_labels(zero)}: the baseline's numbers exactly, for every {one}; is the technique at work?"
        if shifted := [row.label for row in alike if row.label not in zero]:
            yield f"{_labels(shifted)}: the same difference for every {one}; a test would call that certain, so no p-value is given."


def _is_the_same(row: Row, comparison: Comparison) -> bool:
    """Whether each run has the number of the baseline's, which folds may have on the mean alone."""
    both = pairs(row.group, comparison.baseline, comparison.metric).values()
    return all(abs(ours - theirs) <= ROUNDING * abs(row.mean) for ours, theirs in both)


def _about_losses(comparison: Comparison) -> Iterator[str]:
    """Of metrics that are losses: whether they are the same loss, of the same tasks."""
    metric = comparison.metric
    place, _, name = metric.rpartition("/")
    if name != "loss":
        return
    measured = [
        {
            name
            for run in group.runs
            for name in run.metrics
            if name.startswith(f"{place}/") and name.endswith(("/loss", "/acc"))
        }
        for group in comparison.groups
    ]
    what = ["loss functions"] * any(key.startswith("loss.") for key in comparison.differing)
    what += ["tasks"] * (len({frozenset(names) for names in measured if names}) > 1)
    if what:
        others = [name for name in set.intersection(*measured) if name.endswith("/acc")]
        hint = f"; take --metric {min(others)}" if others else ""
        yield f"Groups have different {' and '.join(what)}: their {metric} need not measure the same{hint}."


def _about_choices(comparison: Comparison, table: Sequence[Row]) -> Iterator[str]:
    tests = sum(row.p is not None for row in table)
    if tests > 1:
        yield f"p is corrected for {tests} comparisons (Holm); each interval is 95 % by itself."
    metric = comparison.metric
    if metric in {run.result.get("monitor") for run in comparison.runs} and not comparison.chosen_by:
        yield f"{metric} chose the best model of each run, so it flatters all of them; --metric {metric.replace('val/', 'test/', 1)}"
    if comparison.chosen_by:
        test = comparison.chosen_by.replace("val/", "test/", 1)
        if test != comparison.chosen_by:
            yield f"A search chooses by {comparison.chosen_by}: report the {test} of what it chose; the best trial by {test} is partly luck."
    elif metric.startswith("test/") and len(comparison.groups) >= MANY_GROUPS:
        yield (
            f"The best of {len(comparison.groups)} by {metric} is partly luck: choose by --metric "
            f"{metric.replace('test/', 'val/', 1)}, then report {metric}."
        )


def _about_circumstances(comparison: Comparison) -> Iterator[str]:
    runs = comparison.runs
    data = [key for key in comparison.differing if key.startswith("data.") and not key.startswith("data.batch_size")]
    if data:
        yield f"Groups differ in their data ({', '.join(data[:LISTED])}): they may be tested on different samples."
    steps = {int(run.result.get("steps") or 0) for run in runs}
    per_group = {frozenset(int(run.result.get("steps") or 0) for run in group.runs) for group in comparison.groups}
    if len(per_group) > 1:
        early = " (some stopped early)" if any(run.result.get("stopped_early") for run in runs) else ""
        yield f"Groups trained for different numbers of steps, {min(steps):,} to {max(steps):,}{early}."
    held = [facts for run in runs for facts in run.stretches]
    torches = {str((facts.get("versions") or {}).get("torch", "unknown")) for facts in held}
    if len(torches) > 1:
        yield f"Runs of different versions of torch: {', '.join(sorted(torches))}."
    commits = {str(facts.get("git_commit") or "unknown") for facts in held}
    dirty = sum(commit.endswith("+") for commit in commits)
    if len(commits) > 1:
        yield f"Runs of {len(commits)} revisions of the source: {_listed(sorted(map(_short, commits)))}{_DIRTY if dirty else '.'}"
    elif dirty:
        yield f"All runs are of {_short(commits.pop())}{_DIRTY}"
    machines = {str(facts.get("machine") or "unknown") for facts in held}
    if len(machines) > 1:
        yield f"Runs of different machines ({_listed(sorted(machines), '; ')}): their times are not comparable."
    devices = {int(run.result.get("devices") or 1) for run in runs}
    if len(devices) > 1:
        yield f"Runs on different numbers of devices ({_listed([str(number) for number in sorted(devices)])}): their times are not comparable."


def _short(commit: str) -> str:
    return commit if commit == "unknown" else commit[:7] + "+" * commit.endswith("+")


def statuses(runs: Sequence[Run]) -> str:
    return ", ".join(f"{count} {status}" for status, count in Counter(run.status for run in runs).most_common())


def _count(what: Sequence[object], one: str, several: str) -> str:
    return f"{len(what)} {one if len(what) == 1 else several}"


def shorten(text: str, length: int = 36) -> str:
    """A text of at most this length; what is left out is left out of its middle."""
    if len(text) <= length:
        return text
    tail = length // 3
    return text[: length - tail - 1].rstrip() + "…" + text[len(text) - tail :].lstrip()


def _labels(labels: Sequence[str], everybody: int = 0) -> str:
    if len(labels) == everybody > 1:
        return "All groups"
    return _listed([shorten(label) for label in labels], " · ")


def _listed(words: Sequence[str], between: str = ", ") -> str:
    return between.join(words[:LISTED]) + (f" and {len(words) - LISTED} more" if len(words) > LISTED else "")


def _seeds(seeds: Sequence[Replicate]) -> str:
    return "seed " + _listed([named(seed) for seed in seeds])
