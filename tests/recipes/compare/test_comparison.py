import json
import math
import shlex

import pytest
import yaml
from scipy import stats

from plugins.errors import RecipeError
from recipes.compare.comparison import compare
from recipes.compare.notes import shorten
from recipes.compare.report import write_report
from recipes.compare.runs import find, read
from recipes.compare.statistics import rows
from recipes.config.catalogue import Catalogue
from recipes.config.composing import check
from tests.recipes.compare.fabricated import config, leave, leave_group

CATALOGUE = Catalogue()
FIVE = [0.81, 0.84, 0.79, 0.86, 0.83]
OTHERS = [0.85, 0.83, 0.84, 0.9, 0.82]


def comparison(place, **asked):
    return compare([read(folder, CATALOGUE) for folder in find([place])], CATALOGUE, **asked)


def notes(place, containing):
    """The notes with these words."""
    return [note for note in comparison(place).notes if containing in note]


def two_groups(place, first=FIVE, second=OTHERS, words=("+regularizer=dropout",), **result):
    leave_group(place, "a", first)
    leave_group(place, "b", second, *words, **result)


# The metric


@pytest.mark.parametrize(
    ("monitor", "metrics", "metric"),
    [
        ("val/acc", ("test/loss", "test/acc", "val/acc"), "test/acc"),
        ("val/loss", ("test/acc", "test/loss", "val/loss"), "test/loss"),
        ("val/digit/acc", ("test/acc", "test/digit/acc"), "test/digit/acc"),
        ("val/acc_pgd", ("val/acc_pgd", "test/acc"), "val/acc_pgd"),
        ("val/acc", ("test/loss", "train/loss"), "test/loss"),
        ("val/acc", ("train/loss",), "train/loss"),
        (None, ("test/loss", "test/acc"), "test/acc"),
    ],
)
def test_the_metric_is_the_test_counterpart_of_what_chose_the_models(tmp_path, monitor, metrics, metric):
    leave(tmp_path / "a", monitor=monitor, metrics=dict.fromkeys(metrics, 0.5))
    assert comparison(tmp_path).metric == metric


def test_a_metric_that_all_runs_have_is_preferred(tmp_path):
    leave(tmp_path / "a", metrics={"test/acc": 0.5, "test/loss": 1.0})
    leave(tmp_path / "b", "+regularizer=l2", metrics={"test/loss": 1.0})
    assert comparison(tmp_path).metric == "test/loss"


def test_runs_that_chose_by_different_metrics_are_told(tmp_path):
    leave(tmp_path / "a", monitor="val/loss")
    leave_group(tmp_path, "b", FIVE, "+regularizer=l2")
    found = comparison(tmp_path)
    assert found.metric == "test/acc"
    assert any("val/acc 5, val/loss 1" in note for note in found.notes)


def test_an_unknown_metric_is_a_mistake_with_the_nearest_name_or_all(tmp_path):
    leave(tmp_path / "a")
    with pytest.raises(RecipeError, match=r"no metric test/ac; did you mean --metric test/acc\?"):
        comparison(tmp_path, metric="test/ac")
    with pytest.raises(RecipeError, match="there is test/acc, test/loss"):
        comparison(tmp_path, metric="xyz")


# The baseline


def test_the_baseline_has_the_fewest_added_techniques(tmp_path):
    leave(tmp_path / "1", "+regularizer=[dropout,l2]")
    leave(tmp_path / "2", "+clipping=norm", "+wrapper=sam")
    leave(tmp_path / "3", "optimizer=adam", "normalization=batch", "+averaging=ema")  # what every run has one of adds nothing
    found = comparison(tmp_path)
    assert found.baseline.options["averaging"] == ["ema"]
    assert "fewest added techniques" in found.notes[0] and "--baseline" in found.notes[0]


def test_of_several_with_as_few_the_first_is_the_baseline_and_this_is_said(tmp_path):
    leave(tmp_path / "1", "+wrapper=sam")
    leave(tmp_path / "2", "optimizer=adam")
    leave(tmp_path / "3", "optimizer=sgd")
    found = comparison(tmp_path)
    assert found.baseline.options["optimizer"] == ["adam"]
    assert "the first of 2 groups without added techniques" in found.notes[0]


def test_a_run_whose_options_are_not_installed_here_adds_what_its_config_says(tmp_path):
    folder = leave(tmp_path / "1")
    result = json.loads((folder / "result.json").read_text())
    result["config"]["optimizer"] = {"_target_": "other.package.Optimizer"}
    (folder / "result.json").write_text(json.dumps(result))
    leave(tmp_path / "2", "+wrapper=sam")
    assert comparison(tmp_path).baseline.runs[0].folder == folder  # which adds nothing


def test_the_baseline_can_be_named_by_label_or_folder(tmp_path):
    two_groups(tmp_path / "runs", words=("+regularizer=dropout",))
    for asked in ("+regularizer=dropout", str(tmp_path / "runs" / "b3")):
        found = comparison(tmp_path, baseline=asked)
        assert found.baseline.label == "+regularizer=dropout"
        assert not any(note.startswith("Baseline") for note in found.notes)


def test_an_unknown_baseline_is_a_mistake_that_lists_the_labels(tmp_path):
    two_groups(tmp_path)
    with pytest.raises(RecipeError) as error:
        comparison(tmp_path, baseline="+regularizer=dropuot")
    assert "did you mean +regularizer=dropout?" in str(error.value) and "'nothing added'" in str(error.value)
    with pytest.raises(RecipeError, match="holds runs of 2 groups; name one"):
        comparison(tmp_path, baseline=str(tmp_path))


def test_a_run_that_was_changed_on_the_way_is_no_baseline_by_default_and_is_told(tmp_path):
    history = [{"step": 0, "command": [], "changed": {}}, {"step": 9, "command": [], "changed": {"trainer.devices": [1, 2]}}]
    leave(tmp_path / "1", history=history)
    leave(tmp_path / "2", "+wrapper=sam")
    assert comparison(tmp_path).baseline.runs[0].folder.name == "2"
    (note,) = notes(tmp_path, "changed on the way")
    assert note.startswith("resumed: trainer.devices 1→2 at step 9: ") or "…" in note


def test_what_held_on_the_way_counts_among_the_circumstances(tmp_path):
    """The last part of a run is not all of it."""
    first = {"step": 0, "command": [], "changed": {}, "versions": {"torch": "2.6.0"}, "git_commit": "1" * 40, "machine": "H200"}
    two_groups(tmp_path, history=[first])
    for words in (
        "versions of torch: 2.15.0, 2.6.0.",
        "2 revisions of the source",
        "different machines (CPU, 1 threads; H200)",
    ):
        assert len(notes(tmp_path, words)) == 1


# Searches


def search(place, *values, monitor="val/acc", sweeper="optuna", again=(), pruned=()):
    """A search as Optuna leaves it: for each trial what it had in validation and in the test; what the best had afterwards, with fresh seeds."""
    jobs = {}
    for number, (validation, test) in enumerate(values):
        metrics = {monitor: validation, monitor.replace("val/", "test/"): test}
        leave(place / str(number), f"optimizer.lr=0.{number + 1}", metrics=metrics, monitor=monitor)
        jobs[str(number)] = [f"optimizer.lr=0.{number + 1}"]
    plan = {"words": ["optimizer.lr=interval(0.1,1)"], "hydra": [f"hydra/sweeper={sweeper}"], "config_dir": None, "jobs": jobs}
    larger = monitor.endswith("acc")
    best = (max if larger else min)(range(len(values)), key=lambda number: values[number][0])
    for number, (validation, test) in enumerate(again, len(values)):
        metrics = {monitor: validation, monitor.replace("val/", "test/"): test}
        leave(place / str(number), f"optimizer.lr=0.{best + 1}", seed=number, metrics=metrics, monitor=monitor)
        jobs[str(number)] = [f"optimizer.lr=0.{best + 1}", f"seed={number}"]
    for number, value in enumerate(pruned, len(jobs)):
        leave(place / str(number), f"optimizer.lr=0.0{number}", status="pruned", metrics={monitor: value}, pruned_at=3)
        jobs[str(number)] = [f"optimizer.lr=0.0{number}"]
    (place / "jobs.yaml").write_text(yaml.safe_dump(plan))
    if again:
        repeated = [str(number) for number in range(len(values), len(values) + len(again))]
        (place / "optimization_results.yaml").write_text(yaml.safe_dump({"repeated_jobs": repeated}))


def test_the_fresh_seeds_of_the_best_trial_choose_nothing(tmp_path):
    search(tmp_path, (0.5, 0.9), (0.8, 0.6), (0.7, 0.95), again=[(0.2, 0.3), (0.4, 0.1)])
    found = comparison(tmp_path)
    assert found.baseline.label == "optimizer.lr=0.2" and len(found.baseline.runs) == 3
    assert "of 3 trials by val/acc (val/acc 0.8000, test/acc 0.6000)" in found.notes[0]
    assert {folder.name for folder in found.again} == {"3", "4"}
    assert found.baseline.mean("val/acc", found.again) == 0.8 and found.baseline.mean("val/acc") == pytest.approx(1.4 / 3)


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val/acc", [(0.5, 0.9), (0.8, 0.6), (0.7, 0.95), (0.8, 0.7)], "optimizer.lr=0.2"),
        ("val/loss", [(0.5, 0.1), (0.2, 0.9), (math.nan, 0.05)], "optimizer.lr=0.2"),
    ],
)
def test_the_baseline_of_a_search_is_what_validation_chose_and_so_is_what_decides(tmp_path, monitor, values, best):
    search(tmp_path, *values, monitor=monitor)
    found = comparison(tmp_path)
    assert (found.baseline.label, found.metric, found.chosen_by) == (best, monitor, monitor)
    validation, test = values[1]
    assert f"which the search chose of {len(values)} trials by {monitor} ({monitor} {validation:.4f}, " in found.notes[0]
    assert f"test/{monitor[4:]} {test:.4f})" in found.notes[0]
    assert not any("flatters" in note for note in found.notes) and any("A search chooses by" in note for note in found.notes)
    asked = comparison(tmp_path, baseline="optimizer.lr=0.1", metric=f"test/{monitor[4:]}")
    assert (asked.baseline.label, asked.metric, asked.chosen_by) == ("optimizer.lr=0.1", f"test/{monitor[4:]}", None)


@pytest.mark.parametrize(
    ("found", "label", "metric", "told"),
    [
        ({"best_job": "2", "metric": "val/loss"}, "0.3", "val/loss", "by val/loss (val/loss 0.1000, test/loss 0.4000)"),
        ({"best_job": "0", "metric": "seconds"}, "0.1", "test/acc", "by seconds; "),
        (
            {"best_job": "0", "metric": "val/loss", "objectives": ["val/loss", "seconds"]},
            "0.1",
            "test/acc",
            "by val/loss and seconds; ",
        ),
        ({"best_job": "../search/2", "metric": "val/loss"}, "0.2", "val/acc", "by val/acc (val/acc 0.8000, test/acc 0.6000)"),
        ({"best_job": "7", "metric": "val/loss"}, "0.2", "val/acc", "by val/acc"),
        ({"best_job": [2], "metric": "val/loss"}, "0.2", "val/acc", "by val/acc"),
    ],
)
def test_the_baseline_of_a_search_is_what_it_says_it_has_chosen(tmp_path, found, label, metric, told):
    place = tmp_path / "search"
    search(place, (0.5, 0.9), (0.8, 0.6), (0.7, 0.95))
    for number, loss in enumerate((0.3, 0.2, 0.1)):  # of which the trial with the best accuracy has not the smallest
        path = place / str(number) / "result.json"
        result = json.loads(path.read_text())
        result["metrics"] |= {"val/loss": loss, "test/loss": loss + 0.3}
        path.write_text(json.dumps(result))
    (place / "optimization_results.yaml").write_text(yaml.safe_dump(found))
    compared = comparison(place)
    assert (compared.baseline.label, compared.metric) == (f"optimizer.lr={label}", metric)
    assert f"which the search chose of 3 trials {told}" in compared.notes[0]
    head = told.partition(" (")[0].rstrip("; ")
    assert compared.chosen_by == head.removeprefix("by ")
    write_report(compared, rows(compared), tmp_path / "report.html")
    assert f"of 3 trials {head}: " in (tmp_path / "report.html").read_text()


def test_a_sweep_is_no_search_and_a_search_beside_other_runs_is_none(tmp_path):
    search(tmp_path / "sweep", (0.5, 0.9), (0.8, 0.6), sweeper="basic")
    assert comparison(tmp_path).chosen_by is None and comparison(tmp_path).baseline.label == "optimizer.lr=0.1"
    search(tmp_path / "search", (0.6, 0.9), (0.7, 0.6), (0.1, 0.1))
    assert comparison(tmp_path / "search").chosen_by == "val/acc" and comparison(tmp_path).chosen_by is None


# What must be said


def test_a_comparison_without_weakness_has_only_what_always_holds(tmp_path):
    two_groups(tmp_path)
    assert len(comparison(tmp_path, baseline="nothing added").notes) == 0


def test_no_finished_run_is_a_mistake_that_tells_what_went_wrong(tmp_path):
    leave(tmp_path / "a", status="failed", error="out of memory")
    leave(tmp_path / "b", status="running", seed=1)
    with pytest.raises(RecipeError, match=r"none of 2 runs is finished \(1 failed, 1 running\); .*a: out of memory"):
        comparison(tmp_path)


def test_few_seeds_are_said_with_how_wide_they_make_the_interval(tmp_path):
    two_groups(tmp_path, second=OTHERS[:3])
    (note,) = notes(tmp_path, "few seeds")
    wide, enough = (stats.t.ppf(0.975, n - 1) / math.sqrt(n) for n in (3, 5))
    assert "+regularizer=dropout:" in note and "nothing added" not in note and "seed=0,1,2,3,4" in note
    assert f"With 3 an interval is ± {wide:.1f} " in note and f"with 5 ± {enough:.1f};" in note


def test_one_seed_is_said_to_say_nothing(tmp_path):
    two_groups(tmp_path, first=FIVE[:1], second=OTHERS[:1])
    (note,) = notes(tmp_path, "chance")
    assert note.startswith("All groups: one run says nothing about chance") and "seed=0,1,2,3,4" in note


@pytest.mark.parametrize(
    ("words", "added"),
    [
        ((), "+regularizer=[],[l2]"),
        (("optimizer=adam", "optimizer.lr=0.1", "notes='a b'"), "+regularizer=[],[l2]"),
        (("+regularizer=[]", "optimizer=adam", "optimizer.lr=0.1"), "optimizer=sgd,adam"),
        (("recipe=fashion_mnist_combined",), "optimizer=sgd,adam"),
    ],
)
def test_one_group_is_told_what_to_run(tmp_path, words, added):
    leave_group(tmp_path, "a", FIVE, *words)
    (note,) = notes(tmp_path, "one group only")
    command = shlex.split(note[note.index("python train.py") :])
    assert command[:3] == ["python", "train.py", "-m"] and command[-2:] == [added, "seed=0,1,2,3,4"]
    check(CATALOGUE, command[3:], True)  # raises where train.py would


def test_runs_that_are_not_finished_are_counted_and_their_group_is_named(tmp_path):
    two_groups(tmp_path)
    leave(tmp_path / "c", "+regularizer=dropout", seed=5, status="failed", error="nan")
    leave(tmp_path / "d", "+wrapper=sam", status="stopped", stopped_by="SIGINT")
    (note,) = notes(tmp_path, "not finished")
    assert "2 runs are not finished" in note and "1 failed, 1 stopped" in note and "Without them +regularizer=dropout" in note
    assert [run.error for run in comparison(tmp_path).unfinished] == ["nan", "SIGINT"]


def test_diverged_runs_are_counted(tmp_path):
    two_groups(tmp_path, second=[0.8, math.nan, 0.9, math.nan, 0.7])
    (note,) = notes(tmp_path, "no number")
    assert "+regularizer=dropout: 2 of 5 runs gave no number for test/acc (seed 1, 3)" in note


def test_a_metric_that_some_runs_lack_is_told(tmp_path):
    two_groups(tmp_path)
    leave(tmp_path / "c", "+wrapper=sam", metrics={"val/acc": 0.5})
    assert any(
        "+wrapper=sam: 1 of 1 run gave no number for test/acc" in note for note in comparison(tmp_path, metric="test/acc").notes
    )


def test_a_diverged_baseline_is_told(tmp_path):
    two_groups(tmp_path, first=[0.8, math.nan, 0.9, 0.8, 0.7])
    leave_group(tmp_path, "c", [0.8, 0.7, math.nan, 0.8, 0.7], "+wrapper=sam")  # which has no mean of its own
    (note,) = notes(tmp_path, "The baseline has no number")
    assert "for +regularizer=dropout; choose" in note and "--baseline" in note


@pytest.mark.parametrize(
    ("words", "metrics", "said"),
    [
        (
            ("loss=mse",),
            {"test/loss": 0.1, "test/acc": 0.5},
            "different loss functions: their test/loss need not measure the same; take",
        ),
        ((), {"test/loss": 0.1}, "different tasks: their test/loss need not measure the same."),
        ((), {"test/loss": 2.0, "test/digit/loss": 1.0, "test/letter/loss": 1.0}, "different tasks"),
        (("+regularizer=l2",), {"test/loss": 2.0, "test/acc": 0.5, "test/acc_pgd": 0.1, "val/digit/loss": 2.0}, ""),
    ],
)
def test_losses_that_are_not_the_same_are_told(tmp_path, words, metrics, said):
    leave(tmp_path / "a", "max_epochs=3", metrics={"test/loss": 1.0, "test/acc": 0.5})
    leave(tmp_path / "b", *words, metrics=metrics)
    found = [note for note in comparison(tmp_path, metric="test/loss").notes if "need not measure" in note]
    assert len(found) == bool(said) and said in "".join(found)
    if "test/acc" in metrics:
        assert not any("need not measure" in note for note in comparison(tmp_path, metric="test/acc").notes)


def test_seeds_that_the_baseline_lacks_are_told(tmp_path):
    leave_group(tmp_path, "a", FIVE)
    for seed in (3, 4, 5, 6, 7):
        leave(tmp_path / f"b{seed}", "+regularizer=l2", seed=seed, metrics={"test/acc": 0.1 * seed})
        leave(tmp_path / f"c{seed}", "+wrapper=sam", seed=seed + 50, metrics={"test/acc": 0.2 * seed})
    assert notes(tmp_path, "only 2 in common")[0].startswith("+regularizer=l2:")
    assert notes(tmp_path, "no seed or fold in common")[0].startswith("+wrapper=sam:")


def test_a_seed_that_ran_twice_is_told(tmp_path):
    two_groups(tmp_path)
    leave(tmp_path / "z", "+regularizer=dropout", seed=3, metrics={"test/acc": 0.99})
    (note,) = notes(tmp_path, "more than once")
    assert "+regularizer=dropout" in note and "seed 3" in note
    assert comparison(tmp_path).groups[1].metric("test/acc")[3,] == 0.99


def test_equal_numbers_are_told(tmp_path):
    leave_group(tmp_path, "a", FIVE)
    leave_group(tmp_path, "b", FIVE, "+regularizer=dropout")
    leave_group(tmp_path, "c", [value + 0.01 for value in FIVE], "+regularizer=l2")
    leave_group(tmp_path, "d", [0.5] * 5, "+wrapper=sam")
    assert notes(tmp_path, "exactly")[0].startswith("+regularizer=dropout:")
    assert notes(tmp_path, "no p-value")[0].startswith("+regularizer=l2:")
    assert notes(tmp_path, "one and the same number")[0].startswith("+wrapper=sam:")


def test_only_the_p_values_are_corrected_and_this_is_said(tmp_path):
    two_groups(tmp_path)
    assert not notes(tmp_path, "corrected")
    leave_group(tmp_path, "c", [value + 0.01 * (value > 0.8) for value in FIVE], "+regularizer=l2")
    assert len(notes(tmp_path, "corrected for 2 comparisons")) == 1


def test_the_best_of_many_is_said_to_be_lucky(tmp_path):
    for number in range(5):
        leave_group(tmp_path, f"{number}-", FIVE, f"optimizer.lr=0.{number + 1}")
    assert len(notes(tmp_path, "partly luck")) == 1


def test_a_metric_that_chose_the_models_is_said_to_flatter(tmp_path):
    two_groups(tmp_path)
    for folder in find([tmp_path]):
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"metrics": {"val/acc": 0.5, "test/acc": 0.4}}))
    assert any("flatters" in note and "--metric test/acc" in note for note in comparison(tmp_path, metric="val/acc").notes)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({"steps": 40}, "different numbers of steps, 20 to 40."),
        ({"steps": 15, "stopped_early": True}, "15 to 20 (some stopped early)."),
        ({"versions": {"torch": "2.6.0"}}, "versions of torch: 2.15.0, 2.6.0."),
        ({"versions": None}, "versions of torch: 2.15.0, unknown."),
        ({"git_commit": "1" * 40}, "2 revisions of the source: 0000000, 1111111."),
        ({"git_commit": "1" * 40 + "+"}, "0000000, 1111111+ (+: with changes that are not committed)."),
        ({"machine": "NVIDIA H200"}, "different machines (CPU, 1 threads; NVIDIA H200)"),
        ({"devices": 8}, "different numbers of devices (1, 8)"),
    ],
)
def test_circumstances_that_differ_are_told(tmp_path, difference, words):
    two_groups(tmp_path, **difference)
    assert len(notes(tmp_path, words)) == 1


def test_one_revision_with_changes_is_told(tmp_path):
    leave_group(tmp_path, "a", FIVE, git_commit="1" * 40 + "+")
    assert len(notes(tmp_path, "All runs are of 1111111+")) == 1


def test_data_that_differ_are_told(tmp_path):
    two_groups(tmp_path, words=("data.validation=0.3", "data.batch_size=16"))
    (note,) = notes(tmp_path, "differ in their data")
    assert "data.validation" in note and "batch_size" not in note


def test_every_note_is_one_short_line_however_many_groups_there_are(tmp_path):
    words = "optimizer=adam", "+regularizer=[dropout,l2]", "+augmentation=[mixup,cutout]"
    for number in range(5):
        leave(tmp_path / str(number), *words, f"regularizer.dropout.p=0.{number + 1}", f"optimizer.lr=0.{number + 1}")
        leave(tmp_path / f"{number}b", *words, f"optimizer.lr=0.{number + 1}", metrics={"test/acc": math.nan})
        leave(tmp_path / f"{number}c", f"data.batch_size={number + 1}", status="failed", error="x" * 500)
    found = comparison(tmp_path)
    assert found.notes and all("\n" not in note and len(note) < 280 for note in found.notes)


@pytest.mark.parametrize("length", [10, 36, 37, 38, 200])
def test_shorten_leaves_something_out_of_the_middle(length):
    text = "".join(chr(ord("a") + number % 26) for number in range(length))
    short = shorten(text, 36)
    head, _, tail = short.partition("…")
    assert len(short) <= 36 and text.startswith(head) and text.endswith(tail or head)
    assert (short == text) is (length <= 36)


def test_the_configs_here_are_those_of_train_py():
    assert (
        config("optimizer=adam", seed=3)["seed"] == 3
        and config("optimizer=adam")["optimizer"]["_target_"] == "torch.optim.Adam"
    )
