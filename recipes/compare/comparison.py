"""From runs to a comparison: which metric decides, which group is the baseline, and what a careful reader must be told.

Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.compare.datasets import by_data, keys
from recipes.compare.datasets import names as data_names
from recipes.compare.rulers import about_rulers, measured_alike
from recipes.compare.runs import Comparison, Group, Run, differing_keys, find, group_runs, label, larger_for
from recipes.compare.search import is_search
from recipes.compare.statistics import ROUNDING, Row, interval_factor, rows
from recipes.config.catalogue import Catalogue
from recipes.config.errors import printable
from recipes.config.quoting import quote
from recipes.config.spelling import nearest, suggest

ENOUGH_SEEDS = 5
SEEDS = "seed=0,1,2,3,4"
MANY_GROUPS = 5
LISTED = 3  # labels in a sentence
ENDED = ("finished", "diverged")  # what is in the table
_DIRTY = " (+: with changes that are not committed)."


def compare(runs: Iterable[Run], catalogue: Catalogue, *choices: Any, **asked: Any) -> Comparison:
    """The comparison of runs of one data set; arguments as of :func:`compare_all`."""
    (found,) = compare_all(runs, catalogue, *choices, **asked)
    return found


def compare_all(
    runs: Iterable[Run],
    catalogue: Catalogue,
    metric: str | None = None,
    baseline: str | None = None,
    names: Mapping[Path, str] | None = None,
    mode: str | None = None,
) -> list[Comparison]:
    """Group runs that differ in nothing but the seed and set them beside a baseline, those of each data set by themselves.

    Args:
        runs: in the order in which they were found.
        catalogue: knows the options, for labels and for what counts as added.
        metric: decides; by default the test metric that belongs to the one by which the runs chose their best model.
        baseline: the label of a group or a folder of its runs; by default the group with the fewest added techniques.
        names: labels to use, by resolved run folder; where several groups have one, each has its own label behind it.
        mode: which value of the metric is best, max or min; by default as the runs know.

    Raises:
        RecipeError: nothing to compare; no such metric, or one of which nobody knows whether larger is better.
    """
    runs = list(runs)
    finished = [run for run in runs if run.status in ENDED]
    unfinished = [run for run in runs if run.status not in ENDED]
    if not any(run.status == "finished" for run in finished):
        unfinished = [*finished, *unfinished]
        first = unfinished[0]
        raise RecipeError(
            f"none of {len(runs)} runs is finished ({_statuses(unfinished)}); "
            f"{first.folder}{': ' if first.error else ''}{first.error}"
        )
    data = by_data(finished)
    missing = _by_place(unfinished, runs, data)
    sets = [group_runs(some) for some in data]
    label([group for groups in sets for group in groups], catalogue, sets)
    for groups in sets:
        _rename(groups, catalogue, names or {})
    metrics = list(dict.fromkeys(name for run in finished for name in run.metrics))
    searches = [is_search([run for group in groups for run in group.runs]) for groups in sets]
    baselines = _baselines(sets, catalogue, baseline)
    comparisons = []
    for place, (groups, some, name) in enumerate(zip(sets, data, data_names(data), strict=True)):
        chosen_metric, about_metric = _metric(some, metric, metrics, searches[place])
        chosen, about_baseline = baselines[place]
        monitor = None
        if searches[place] and len(groups) > 1:
            monitor = _monitors(some).most_common(1)[0][0]
            chosen, about_baseline = (chosen, []) if baseline else _chosen_by_search(groups, monitor)
        comparison = Comparison(
            groups, chosen, chosen_metric, missing[place], differing_keys(groups), [], mode, name, None if baseline else monitor
        )
        if comparison.larger is None:
            raise RecipeError(
                f"whether a larger or a smaller {chosen_metric} is better is not known: type --mode max or --mode min"
            )
        comparison.notes += [*map(printable, [*about_baseline, *about_metric, *notes(comparison, some)])]
        comparisons.append(comparison)
    return comparisons


def _by_place(unfinished: Sequence[Run], runs: Sequence[Run], data: Sequence[Sequence[Run]]) -> list[list[Run]]:
    """The runs that are not finished, beside the finished ones of their data; of what nobody knows the data, beside the first."""
    of = keys(runs)
    places = {of[id(some[0])]: place for place, some in enumerate(data)}
    found: list[list[Run]] = [[] for _ in data]
    for run in unfinished:
        found[places.get(of[id(run)], 0)].append(run)
    return found


def _rename(groups: Sequence[Group], catalogue: Catalogue, names: Mapping[Path, str]) -> None:
    """Give groups the names that were typed; a name of several groups stands before what sets these apart."""
    named: dict[str, list[Group]] = {}
    for group in groups:
        found = list(dict.fromkeys(names[run.folder.resolve()] for run in group.runs if run.folder.resolve() in names))
        if len(found) > 1:
            raise RecipeError(
                f"{' and '.join(map(quote, found))}: these runs differ in nothing but the seed; give them one name"
            )
        if found:
            named.setdefault(found[0], []).append(group)
    for name, some in named.items():
        if len(some) > 1:
            label(some, catalogue)
        for group in some:
            group.label = f"{name}: {group.label}" if len(some) > 1 else name
    counts = Counter(group.label for group in groups)
    for name, some in named.items():
        for group in some:
            if counts[group.label] > 1:
                raise RecipeError(
                    f"{name}=FOLDER: {counts[group.label]} groups would have the name {group.label}; take another one"
                )


# The metric


def _monitors(finished: Sequence[Run]) -> Counter[str]:
    return Counter(str(run.result.get("monitor") or "val/acc") for run in finished)


def _metric(
    finished: Sequence[Run], asked: str | None, known: Sequence[str] = (), search: bool = False
) -> tuple[str, list[str]]:
    """The metric that decides; `known` are those of all data sets. A search has decided by what chose the best models."""
    finished = [run for run in finished if run.status == "finished"] or list(finished)
    names = list(dict.fromkeys(name for run in finished for name in run.metrics))
    if not names:
        raise RecipeError(f"no finished run has a metric; {finished[0].folder} is one without")
    if asked is not None:
        if asked not in (known or names):
            raise RecipeError(f"there is no metric {asked}; {suggest(asked, known or names, '--metric {}')}")
        return asked, []
    monitors = _monitors(finished)
    monitor = monitors.most_common(1)[0][0]
    wanted = [*[monitor] * search, monitor.replace("val/", "test/", 1), monitor, "test/loss", *names]
    everywhere = [name for name in wanted if all(name in run.metrics for run in finished)]
    metric = (everywhere or [name for name in wanted if name in names])[0]
    if len(monitors) == 1:
        return metric, []
    counts = ", ".join(f"{name} {count}" for name, count in monitors.most_common())
    return metric, [f"Runs chose their best model by different metrics ({counts}); --metric NAME decides here."]


# The baseline


def _baselines(sets: Sequence[Sequence[Group]], catalogue: Catalogue, asked: str | None) -> list[tuple[Group, list[str]]]:
    """The baseline of each data set; where the one that was asked for is not on all of them, the others have their own."""
    if asked is None:
        return [_baseline(groups, catalogue) for groups in sets]
    found: list[tuple[Group, list[str]] | None] = []
    problems: list[RecipeError] = []
    for groups in sets:
        try:
            found.append((_asked_baseline(groups, asked), []))
        except RecipeError as error:
            found.append(None)
            problems.append(error)
    there = [chosen for chosen in found if chosen]
    if not there:
        raise problems[0]
    same = {chosen.label for chosen, _ in there}
    for place, groups in enumerate(sets):
        if found[place] is None:
            alike = [group for group in groups if group.label in same]
            found[place] = (alike[0], []) if alike else _baseline(groups, catalogue)
    return [chosen for chosen in found if chosen]


def _chosen_by_search(groups: Sequence[Group], monitor: str) -> tuple[Group, list[str]]:
    """The trial that a search has chosen: the best by what chose the best model of each, the first of equals."""
    sign = 1.0 if larger_for(monitor, [run for group in groups for run in group.runs]) else -1.0

    def score(group: Group) -> float:
        values = [sign * value for value in group.metric(monitor).values()]
        return sum(values) / len(values) if all(map(math.isfinite, values)) else -math.inf

    best = max(groups, key=score)
    test = monitor.replace("val/", "test/", 1)
    values = {name: list(best.metric(name).values()) for name in (monitor, test)}
    told = [f"{name} {sum(some) / len(some):.4f}" for name, some in values.items() if all(map(math.isfinite, some))]
    return best, [
        f"Baseline: {shorten(best.label)}, which the search chose of {len(groups)} trials by {monitor} ({', '.join(told)}); "
        "--baseline LABEL chooses another one."
    ]


def _baseline(groups: Sequence[Group], catalogue: Catalogue) -> tuple[Group, list[str]]:
    if len(groups) == 1:
        return groups[0], []

    def added(group: Group) -> float:
        if group.runs[0].resumed:  # no run of its config alone
            return math.inf
        return sum(len(names) for name, names in group.options.items() if name not in catalogue.defaults)

    fewest = min(map(added, groups))
    as_few = [group for group in groups if added(group) == fewest]
    why = "without added techniques" if fewest == 0 else "with the fewest added techniques"
    why = f"the group {why}" if len(as_few) == 1 else f"the first of {len(as_few)} groups {why}"
    return as_few[0], [f"Baseline: {shorten(as_few[0].label)}, {why}; --baseline LABEL chooses another one."]


def _asked_baseline(groups: Sequence[Group], asked: str) -> Group:
    labels = [group.label for group in groups]
    if asked in labels:
        return groups[labels.index(asked)]
    if Path(asked).is_dir():
        folders = {folder.resolve() for folder in find([Path(asked)])}
        there = [group for group in groups if any(run.folder.resolve() in folders for run in group.runs)]
        if len(there) == 1:
            return there[0]
        what = f"runs of {len(there)} groups" if there else "no finished run"
        raise RecipeError(f"--baseline {asked}: the folder holds {what}; name one: {_choices(labels)}")
    close = nearest(asked, labels)
    listed = f"did you mean {quote(close)}? There is" if close else "there is"
    raise RecipeError(f"--baseline {asked}: there is no such group or folder; {listed} {_choices(labels)}")


def _choices(labels: Sequence[str]) -> str:
    shown = ", ".join(map(quote, labels[:20]))
    return shown + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")


# What must be known before the table is believed


def notes(comparison: Comparison, finished: Sequence[Run]) -> list[str]:
    """A sentence for each thing that makes the numbers say less than they seem to; `finished` has runs of one seed twice too."""
    table = rows(comparison)
    return [
        *_about_groups(comparison),
        *_about_history(comparison),
        *_about_failures(comparison),
        *_about_seeds(comparison, table, finished),
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
        yield f"{_count(missing, 'run is', 'runs are')} not finished and not in the table: {_statuses(missing)}.{of}"
    lacking = []
    for group in comparison.groups:
        values = group.metric(comparison.metric)
        diverged = [run.seed for run in group.runs if run.status == "diverged"]
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
        seeds = sorted({run.seed for run in twice})
        yield f"{_labels(hit)}: run more than once ({_seeds(seeds)}); the run found last counts."
    single = [row.label for row in table if row.n == 1]
    few = [row for row in table if 1 < row.n < ENOUGH_SEEDS]
    everybody = len(table)
    if single:
        yield f"{_labels(single, everybody)}: one run says nothing about chance; repeat the command with {SEEDS}"
    if few:
        n = min(row.n for row in few)
        yield (
            f"{_labels([row.label for row in few], everybody)}: few seeds. With {n} an interval is ± {interval_factor(n):.1f} standard "
            f"deviations wide, with {ENOUGH_SEEDS} ± {interval_factor(ENOUGH_SEEDS):.1f}; repeat the command with {SEEDS}"
        )
    others = [row for row in table if not row.baseline]
    if unpaired := [row.label for row in others if row.pairs == 0]:
        yield f"{_labels(unpaired)}: no seed in common with the baseline, so no difference is given."
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


def _about_equal_numbers(comparison: Comparison, table: Sequence[Row]) -> Iterator[str]:
    same = [row.label for row in table if row.n > 1 and math.isfinite(row.mean) and row.interval is None]
    if same:
        yield f"{_labels(same)}: all seeds gave one and the same number, so no interval is given."
    equal = [row for row in table if row.pairs > 1 and row.difference is not None and row.p is None]
    zero = [row.label for row in equal if abs(row.difference or 0.0) <= ROUNDING * abs(row.mean)]
    if zero:
        yield f"{_labels(zero)}: the baseline's numbers exactly, for every seed; is the technique at work?"
    if shifted := [row.label for row in equal if row.label not in zero]:
        yield f"{_labels(shifted)}: the same difference for every seed; a test would call that certain, so no p-value is given."


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


def _statuses(runs: Sequence[Run]) -> str:
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


def _seeds(seeds: Sequence[int]) -> str:
    return "seed " + _listed([str(seed) for seed in seeds])
