import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from recipes.compare.csv_files import runs_csv
from recipes.compare.groups import Comparison, group_runs, independent, label
from recipes.compare.notes import notes
from recipes.compare.runs import find, read
from recipes.compare.statistics import holm, interval, interval_factor, overlap, p_value, rows
from recipes.config.catalogue import Catalogue
from recipes.data.times import forward
from tests.recipes.compare.fabricated import leave, leave_group

CATALOGUE = Catalogue()
ADDED = ("+regularizer=dropout", "+regularizer=l2", "+clipping=norm", "+averaging=ema")


def comparison_of(place, metric="test/acc"):
    groups = group_runs([read(folder, CATALOGUE) for folder in find([place])])
    label(groups, CATALOGUE)
    return Comparison(groups, groups[0], metric, [], [], [])


def rows_of(place, *values, metric="test/acc"):
    """Rows of groups with these values, the first of which is the baseline."""
    for number, (some, words) in enumerate(zip(values, [(), *((word,) for word in ADDED)], strict=False)):
        leave_group(place, f"{number}-", some, *words, metric=metric)
    return rows(comparison_of(place, metric))


# Holm against the closed testing procedure, of which it is the shortcut when intersections are tested by Bonferroni


def closed_testing(p_values):
    """Adjusted p-values: the largest Bonferroni p-value among all intersections that contain the hypothesis."""
    numbers = range(len(p_values))
    subsets = [subset for size in range(1, len(p_values) + 1) for subset in itertools.combinations(numbers, size)]
    bonferroni = {subset: min(1.0, len(subset) * min(p_values[i] for i in subset)) for subset in subsets}
    return [max(p for subset, p in bonferroni.items() if number in subset) for number in numbers]


@pytest.mark.parametrize("size", range(1, 8))
def test_holm_is_the_closed_testing_procedure_with_bonferroni(size):
    rng = np.random.default_rng()
    for _ in range(20):
        p_values = list(rng.random(size) ** rng.integers(1, 5))
        if size > 2:
            p_values[1] = p_values[2]  # ties
        assert holm(p_values) == pytest.approx(closed_testing(p_values), rel=1e-12)


def test_holm_leaves_out_what_has_no_p_value():
    p_values = list(np.random.default_rng().random(4) / 8)
    first, second, *rest = holm(p_values)
    assert holm([None, p_values[0], p_values[1], None, *p_values[2:], None]) == [None, first, second, None, *rest, None]
    assert holm([]) == [] and holm([None]) == [None]


# Rows against scipy by hand


def test_rows_are_scipys_numbers(tmp_path):
    rng = np.random.default_rng()
    sizes = (6, 6, 4, 3)
    values = [rng.normal(0.7, 0.1, size) for size in sizes]
    found = rows_of(tmp_path, *(list(some) for some in values))
    raw = []
    for row, ours in zip(found, values, strict=True):
        assert row.n == len(ours)
        assert row.mean == pytest.approx(ours.mean()) and row.deviation == pytest.approx(math.sqrt(ours.var(ddof=1)))
        assert row.interval == pytest.approx(stats.t.interval(0.95, len(ours) - 1, ours.mean(), stats.sem(ours)))
        if row.baseline:
            assert (row.difference, row.p, row.p_corrected) == (None, None, None)
            continue
        test = stats.ttest_rel(ours, values[0][: len(ours)])
        assert row.pairs == len(ours)
        assert row.difference == pytest.approx((ours - values[0][: len(ours)]).mean())
        assert row.difference_interval == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert row.p == pytest.approx(test.pvalue)
        raw.append(test.pvalue)
    assert [row.p_corrected for row in found[1:]] == pytest.approx(closed_testing(raw))


def test_differences_are_paired_by_seed_not_by_place(tmp_path):
    ours, theirs = {1: 0.9, 2: 0.7, 5: 0.8}, {0: 0.1, 1: 0.5, 5: 0.6, 7: 0.2}
    for seed, value in theirs.items():
        leave(tmp_path / f"a{seed}", seed=seed, metrics={"test/acc": value})
    for seed, value in ours.items():
        leave(tmp_path / f"b{seed}", ADDED[0], seed=seed, metrics={"test/acc": value})
    row = rows(comparison_of(tmp_path))[1]
    assert (row.n, row.pairs) == (3, 2)
    assert row.difference == pytest.approx(((0.9 - 0.5) + (0.8 - 0.6)) / 2)
    assert row.p == pytest.approx(stats.ttest_rel([0.9, 0.8], [0.5, 0.6]).pvalue)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_cover_the_true_mean_in_95_of_100_cases(n):
    trials, rng = 4000, np.random.default_rng()
    found = (interval(values) for values in rng.normal(3.0, 2.0, (trials, n)))
    covered = sum(low <= 3.0 <= high for low, high in found)
    assert covered / trials == pytest.approx(0.95, abs=4.5 * math.sqrt(0.95 * 0.05 / trials))


def test_the_factor_is_the_table_of_student():
    # t of 97.5 % with 2 and 4 degrees of freedom: 4.303 and 2.776
    assert interval_factor(3) == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert interval_factor(5) == pytest.approx(2.7764 / math.sqrt(5), abs=1e-4)


# Where honesty shows


def test_one_seed_says_nothing_about_chance(tmp_path):
    baseline, row = rows_of(tmp_path, [0.5], [0.75])
    assert (row.mean, row.difference, row.pairs) == (0.75, 0.25, 1)
    for one in (baseline, row):
        assert (one.deviation, one.interval, one.difference_interval, one.p, one.p_corrected) == (None,) * 5


@pytest.mark.parametrize("shift", [0.1, 1 / 3, -0.07])
def test_equal_differences_get_no_p_value(tmp_path, shift):
    values = list(np.random.default_rng().random(5))
    row = rows_of(tmp_path, values, [value + shift for value in values])[1]  # rounding makes them not quite equal
    assert row.difference == pytest.approx(shift)
    assert row.p is None and row.p_corrected is None and row.difference_interval is None and not row.significant


def test_no_difference_at_all_is_zero_without_p_value(tmp_path):
    values = [0.5, 0.6, 0.8]
    _, same, other = rows_of(tmp_path, values, values, [0.7, 0.9, 0.8])
    assert (same.difference, same.p, same.p_corrected) == (0.0, None, None)
    assert other.p_corrected == other.p  # the family has one member


def test_small_but_real_differences_are_tested(tmp_path):
    values = np.array([0.5, 0.6, 0.8])
    row = rows_of(tmp_path, list(values), list(values + np.array([1e-9, 2e-9, 4e-9])))[1]
    assert row.p is not None and 0 < row.p < 1


def test_seeds_that_gave_one_number_have_no_interval(tmp_path):
    (row,) = rows_of(tmp_path, [0.3, 0.3, 0.3])
    assert (row.deviation, row.interval) == (pytest.approx(0.0, abs=1e-15), None)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_run_is_neither_dropped_nor_flattered(tmp_path, bad):
    baseline, row, other = rows_of(tmp_path, [0.5, 0.6, 0.7], [0.9, bad, 0.9], [0.6, 0.6, 0.9])
    assert row.n == 3 and math.isnan(row.mean)
    assert (row.deviation, row.interval, row.difference, row.difference_interval, row.p) == (None,) * 5
    assert math.isfinite(baseline.mean) and other.p_corrected == other.p is not None


def test_a_diverged_baseline_gives_no_differences(tmp_path):
    baseline, row = rows_of(tmp_path, [0.5, math.nan, 0.7], [0.9, 0.8, 0.9])
    assert math.isnan(baseline.mean) and math.isfinite(row.mean)
    assert (row.pairs, row.difference, row.p) == (3, None, None)


def test_no_common_seed_gives_no_difference(tmp_path):
    for seed in (0, 1):
        leave(tmp_path / f"a{seed}", seed=seed)
        leave(tmp_path / f"b{seed}", ADDED[0], seed=seed + 5)
    row = rows(comparison_of(tmp_path))[1]
    assert (row.pairs, row.difference, row.difference_interval, row.p) == (0, None, None, None)


@pytest.mark.parametrize("other", [("data.folds=10",), ("data.folds=5", "data.split_seed=1")])
def test_folds_that_are_cut_in_another_way_are_no_pairs(tmp_path, other):
    """Fold 0 of 5 and fold 0 of 10, or fold 0 of 5 that were drawn anew, are tested on other samples."""
    for name, cut in (("a", ("data.folds=5",)), ("b", other)):
        for fold in range(3):
            leave(tmp_path / f"{name}{fold}", *cut, f"data.fold={fold}", metrics={"test/acc": 0.9 + fold / 100})
    _, other = rows(comparison_of(tmp_path))
    assert (other.pairs, other.difference, other.p) == (0, None, None)


def test_cost_is_the_mean_over_runs_and_a_multiple_of_the_baseline(tmp_path):
    for seed, (seconds, memory) in enumerate([(10, 1e8), (20, 3e8)]):
        leave(tmp_path / f"a{seed}", seed=seed, seconds=seconds, peak_memory=memory)
        leave(tmp_path / f"b{seed}", ADDED[0], seed=seed, seconds=3 * seconds, peak_memory=None)
    baseline, row = rows(comparison_of(tmp_path))
    assert (baseline.seconds, baseline.memory, baseline.seconds_ratio) == (15, 2e8, 1)
    assert (row.seconds, row.seconds_ratio, row.memory_ratio) == (45, 3, None) and math.isnan(row.memory)


def leave_folds(folder, *words, values, seeds=(0,)):
    """A run for each seed and fold."""
    for number, (seed, fold) in enumerate(itertools.product(seeds, range(5))):
        leave(
            folder / str(number), *words, "data.folds=5", f"data.fold={fold}", seed=seed, metrics={"test/acc": values[number]}
        )


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_folds_are_replicates_with_the_correction_for_what_they_share(tmp_path, seeds):
    """Against the equation of Nadeau and Bengio, t = mean / √((1/n + n₂/n₁) s²) with n₂/n₁ = 1/4 of five folds, whose seeds are one number."""
    generator = np.random.default_rng()
    ours, theirs = generator.normal(0.92, 0.02, 5 * len(seeds)), generator.normal(0.9, 0.02, 5 * len(seeds))
    leave_folds(tmp_path / "a", values=theirs, seeds=seeds)
    leave_folds(tmp_path / "b", "+regularizer=dropout", values=ours, seeds=seeds)
    base, other = rows(comparison_of(tmp_path))
    assert base.n == other.n == other.pairs == 5 * len(seeds)
    assert other.deviation == pytest.approx(ours.std(ddof=1)) and other.mean == pytest.approx(ours.mean())
    folds, d = (each.reshape(-1, 5).mean(0) for each in (ours, ours - theirs))
    error = math.sqrt((1 / 5 + 1 / 4) * d.var(ddof=1))
    assert other.p == pytest.approx(2 * stats.t.sf(abs(d.mean()) / error, 4))
    assert other.p > stats.ttest_1samp(d, 0).pvalue
    half = stats.t.ppf(0.975, 4) * error
    assert other.difference_interval == pytest.approx((d.mean() - half, d.mean() + half))
    half = stats.t.ppf(0.975, 4) * math.sqrt((1 / 5 + 1 / 4) * folds.var(ddof=1))
    assert other.interval == pytest.approx((ours.mean() - half, ours.mean() + half))
    comparison = comparison_of(tmp_path)
    told = [note for note in notes(comparison, comparison.runs) if "folds" in note]
    assert len(told) == 1 and "(5)" in told[0] and "Nadeau and Bengio" in told[0]
    assert ("several seeds of a fold count as one" in told[0]) == (len(seeds) > 1)
    assert runs_csv([base, other], []).splitlines()[2].startswith("nothing added,0,1,")


def test_the_same_numbers_again_as_seeds_of_the_same_folds_prove_no_more(tmp_path):
    ours, theirs = [0.912, 0.904, 0.915, 0.901, 0.909], [0.9] * 5
    found = []
    for seeds in (range(1), range(5)):
        place = tmp_path / str(len(seeds))
        leave_folds(place / "a", values=theirs * len(seeds), seeds=seeds)
        leave_folds(place / "b", "+regularizer=dropout", values=ours * len(seeds), seeds=seeds)
        found.append(rows(comparison_of(place))[1])
    once, again = found
    assert (once.n, again.n) == (5, 25)
    for name in ("mean", "interval", "difference", "difference_interval", "p"):
        assert getattr(again, name) == pytest.approx(getattr(once, name)), name


def test_a_fold_with_more_seeds_counts_no_more_than_the_others(tmp_path):
    """The mean, in the middle of its interval, is that of the folds; a difference is of the seeds of a fold that both groups have."""
    theirs = {(0, 0): 0.5, (1, 0): 0.7, (2, 0): 0.9, (0, 1): 0.4, (0, 2): 0.6}
    ours = {(1, 0): 0.8, (2, 0): 0.9, (7, 0): 0.1, (0, 1): 0.6, (1, 1): 0.2, (0, 2): 0.9}
    for name, words, values in (("a", (), theirs), ("b", (ADDED[0],), ours)):
        for (seed, fold), value in values.items():
            cut = ("data.folds=10", f"data.fold={fold}")
            leave(tmp_path / f"{name}{seed}{fold}", *words, *cut, seed=seed, metrics={"test/acc": value})
    base, row = rows(comparison_of(tmp_path))
    assert (base.n, row.n, row.pairs) == (5, 6, 4)
    for one, means in ((base, [0.7, 0.4, 0.6]), (row, [0.6, 0.4, 0.9])):
        assert one.mean == pytest.approx(np.mean(means)) == pytest.approx(sum(one.interval) / 2)
        assert one.group.mean("test/acc") == pytest.approx(one.mean)
    assert row.difference == pytest.approx(np.mean([0.05, 0.2, 0.3])) == pytest.approx(sum(row.difference_interval) / 2)
    comparison = comparison_of(tmp_path)
    (told,) = [note for note in notes(comparison, comparison.runs) if "few" in note]
    wide, enough = (stats.t.ppf(0.975, n - 1) * math.sqrt(1 / n + 1 / 9) for n in (3, 5))
    assert f"few folds. With 3 an interval is ± {wide:.1f} " in told and f"with 5 ± {enough:.1f};" in told
    assert told.endswith("data.folds=10 data.fold=0,1,2,3,4")


def test_folds_whose_means_are_equal_are_not_said_to_have_the_baselines_numbers(tmp_path):
    leave_folds(tmp_path / "a", values=[0.5, 0.6, 0.7, 0.8, 0.9] * 2, seeds=(0, 1))
    values = [0.4, 0.5, 0.6, 0.7, 0.8, 0.6, 0.7, 0.8, 0.9, 1.0]
    leave_folds(tmp_path / "b", "+regularizer=dropout", values=values, seeds=(0, 1))
    comparison = comparison_of(tmp_path)
    told = " ".join(notes(comparison, comparison.runs))
    assert "the same difference for every fold" in told and "numbers exactly" not in told


def test_folds_that_go_forward_in_time_share_less_the_later_they_are(tmp_path):
    """Against the numbers of rows that the data itself holds out."""
    values = [0.8, 0.83, 0.85, 0.84, 0.88]
    for fold, value in enumerate(values):
        words = ("data=csv", "data.path=FILE", "data.time=day", "data.folds=5", f"data.fold={fold}")
        leave(tmp_path / str(fold), *words, metrics={"test/acc": value})
    (row,) = rows(comparison_of(tmp_path))
    cut = [forward(torch.arange(60), 5, fold) for fold in range(5)]
    shared = np.mean([len(held_out) / len(earlier) for earlier, held_out in cut])
    half = stats.t.ppf(0.975, 4) * math.sqrt(1 / 5 + shared) * np.std(values, ddof=1)
    assert row.interval == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    comparison = comparison_of(tmp_path)
    (told,) = [note for note in notes(comparison, comparison.runs) if "Nadeau" in note]
    assert "go forward in time" in told and "most of their training samples" not in told


def test_five_seeds_on_five_folds_are_wrong_in_5_of_100_cases():
    """Equal rules in the model of Nadeau and Bengio: differences of two folds correlate by n₂ / (n₁ + n₂) = 1/5. As 25 numbers they would be wrong far more often."""
    generator, trials = np.random.default_rng(0), 2000
    of_all, of_folds = generator.normal(size=(trials, 1)), generator.normal(size=(trials, 5))
    by_fold = math.sqrt(1 / 5) * of_all + math.sqrt(4 / 5) * of_folds
    difference = by_fold[:, None] + 0.1 * generator.normal(size=(trials, 5, 5))  # of each seed and fold
    replicates = list(itertools.product(range(5), range(5)))
    means = [independent(dict(zip(replicates, each.ravel(), strict=True))) for each in difference]
    pooled, wrong = (
        np.mean([p_value(np.ravel(each), overlap(range(5), 5, False)) < 0.05 for each in each_case])
        for each_case in (difference, means)
    )
    assert pooled > 0.15 and 0.03 < wrong < 0.07


def test_on_data_that_does_not_matter_the_corrected_test_is_rarely_wrong():
    """Folds of one sample of data: the plain test finds a difference of two equal rules far more often than in 5 of 100 cases."""
    generator, plain, corrected = np.random.default_rng(0), 0, 0
    for _ in range(300):
        data = generator.normal(size=60)
        order = generator.permutation(60).reshape(5, 12)
        difference = []
        for _ in range(3):  # each rule's mistake is the distance of what it learned from what is new
            for fold in range(5):
                train, test = np.delete(order, fold, 0).ravel(), order[fold]
                noise = generator.normal(0, 0.05, 2)
                learned = data[train[:24]].mean(), data[train[24:]].mean()
                difference.append(
                    ((data[test] - learned[0] - noise[0]) ** 2 - (data[test] - learned[1] - noise[1]) ** 2).mean()
                )
        difference = np.array(difference)
        plain += p_value(difference) < 0.05
        corrected += p_value(difference.reshape(3, 5).mean(0), 1 / 4) < 0.05
    assert plain > 2 * corrected and corrected < 0.1 * 300


def test_the_same_fold_with_several_seeds_is_no_resampling(tmp_path):
    for seed in range(3):
        leave(tmp_path / str(seed), "data.folds=5", "data.fold=2", seed=seed, metrics={"test/acc": 0.5 + seed / 10})
    (row,) = rows(comparison_of(tmp_path))
    assert row.interval == pytest.approx(interval(np.array([0.5, 0.6, 0.7])))
