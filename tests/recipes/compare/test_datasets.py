"""Runs of several data sets: a table each, a mean rank over all, never a difference between two."""

import csv

import numpy as np
import pytest
from scipy import stats

from plugins.errors import RecipeError
from recipes.cli.compare import main
from recipes.compare import statistics
from recipes.compare.comparison import compare_all
from recipes.compare.datasets import as_file, by_data, names
from recipes.compare.groups import NOTHING_ADDED
from recipes.compare.runs import find, read
from recipes.compare.standing import Standing, critical_difference, friedman, standings, told
from recipes.config.catalogue import Catalogue
from tests.recipes.compare.fabricated import leave, leave_group

CATALOGUE = Catalogue()
FIVE = [0.81, 0.84, 0.79, 0.86, 0.83]
NPZ = ("data=npz", "data.path=FILE")


def runs_of(place):
    return [read(folder, CATALOGUE) for folder in find([place])]


def npz(path, *words):
    return ("data=npz", f"data.path={path}", *words)


def three_sets(place):
    """Three methods on digits, mnist and a file; one of them not on mnist."""
    random = np.random.default_rng()
    for content, data in (("a", ()), ("b", ("data=mnist",)), ("c", npz("my.npz"))):
        for name, words in (("s", ()), ("d", ("+regularizer=dropout",)), ("m", ("optimizer=adam", "+wrapper=sam"))):
            if name != "m" or content != "b":
                leave_group(place, f"{content}{name}", list(random.random(3)), *data, *words, data_content=content * 32)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (((), "a"), ((), "a"), True),
        (((), "a"), ((), "b"), False),  # a file that was changed under its name
        ((npz("x.npz"), "a"), (npz("y/z.npz"), "a"), True),
        ((npz("x.npz"), "a"), (npz("x.npz"), "b"), False),
        ((npz("x.npz"), None), (npz("y.npz"), None), False),  # nothing says that they are the same
        ((npz("x.npz"), None), (npz("x.npz"), None), True),
        ((npz("x.npz"), None), (npz("x.npz"), "a"), True),  # an older run beside a new one
        ((npz("x.npz"), None), (npz("y.npz"), "a"), False),
        ((("data=mnist",), None), (("data=mnist", "data.root=other"), None), False),
        ((("data=mnist",), "a"), (("data=mnist", "data.root=other"), "a"), True),
        ((("data=mnist",), None), (("data=cifar10",), None), False),
        (((), "a"), (npz("copy_of_digits.npz"), "a"), True),
        (((), "a"), (("data.validation=0.3", "data.split_seed=4", "data.batch_size=8"), "a"), True),
    ],
)
def test_the_content_says_which_data_it_is_wherever_it_lies(tmp_path, first, second, same):
    for seed, (words, content) in enumerate((first, second)):
        leave(tmp_path / str(seed), *words, seed=seed, data_content=content)
    assert len(by_data(runs_of(tmp_path))) == (1 if same else 2)
    found = compare_all(runs_of(tmp_path), CATALOGUE)
    assert len(found) == (1 if same else 2)
    if same and first[0][:1] == second[0][:1] and "data.validation=0.3" not in second[0]:
        assert len(found[0].groups) == 1 and [run.seed for run in found[0].groups[0].runs] == [
            0,
            1,
        ]  # where it lies parts no runs


def test_an_older_run_whose_file_has_had_two_contents_belongs_to_neither(tmp_path):
    for number, content in enumerate(("a", "b", None)):
        leave(tmp_path / str(number), *npz("x.npz"), seed=number, data_content=content)
    assert [len(runs) for runs in by_data(runs_of(tmp_path))] == [1, 1, 1]


def test_each_data_set_is_compared_by_itself(tmp_path):
    three_sets(tmp_path)
    runs = runs_of(tmp_path)
    for found in compare_all(runs, CATALOGUE):
        alone = compare_all([run for run in runs if run.content == found.groups[0].runs[0].content], CATALOGUE)
        assert len(alone) == 1
        for ours, theirs in zip(statistics.rows(found), statistics.rows(alone[0]), strict=True):
            for name in ("baseline", "mean", "interval", "difference", "difference_interval", "p_corrected"):
                assert getattr(ours, name) == getattr(theirs, name)
        assert {run.content for run in found.runs} == {found.baseline.runs[0].content}
        assert not any("differ in their data" in note for note in found.notes)


def test_what_differs_between_data_sets_only_names_no_group(tmp_path):
    """A batch size that is the default of the data, or a model that fits it."""
    for content, words in (("a", ("model=linear",)), ("b", ("data=cifar10", "model=resnet18"))):
        for number, more in enumerate(((), ("+regularizer=l2",), ("optimizer.lr=0.3",))):
            leave(tmp_path / f"{content}{number}", *words, *more, data_content=content)
    labels = [{group.label for group in found.groups} for found in compare_all(runs_of(tmp_path), CATALOGUE)]
    assert labels[0] == labels[1] and len(labels[0]) == 3
    assert not any("data" in label or "model" in label for label in labels[0])


def test_mean_ranks_are_those_of_the_means_on_each_data_set(tmp_path):
    three_sets(tmp_path)
    found = [(each, statistics.rows(each)) for each in compare_all(runs_of(tmp_path), CATALOGUE)]
    ranked, others = standings(found)
    assert others == ["optimizer=adam +wrapper=sam"]
    expected = {}
    for label in ("optimizer=sgd", "optimizer=sgd +regularizer=dropout"):
        expected[label] = []
    for _, some in found:
        means = [next(row.mean for row in some if row.label == label) for label in expected]
        for label, rank in zip(expected, stats.rankdata([-mean for mean in means]), strict=True):
            expected[label].append(rank)
    assert {each.label: list(each.ranks) for each in ranked} == expected
    assert [each.mean for each in ranked] == sorted(np.mean(ranks) for ranks in expected.values())


def test_a_group_that_was_not_measured_as_the_baseline_has_no_rank(tmp_path):
    """Losses of another kind are smaller or larger, not better or worse."""
    for content in "ab":
        for number, loss in enumerate(("cross_entropy", "cross_entropy", "bce", None)):
            leave(
                tmp_path / f"{content}{number}",
                f"optimizer.lr=0.{number + 1}",
                metrics={"test/loss": 3.0 - number},
                rulers={"loss": {"_target_": loss}} if loss else {},
                status="finished" if loss else "diverged",
                monitor="val/loss",
                data_content=content,
            )
    ranked, others = standings([(each, statistics.rows(each)) for each in compare_all(runs_of(tmp_path), CATALOGUE)])
    ranks = {each.label[-3:]: each.ranks for each in ranked}
    assert ranks == {"0.1": (2.0, 2.0), "0.2": (1.0, 1.0), "0.4": (3.0, 3.0)}  # what has diverged was measured by nothing
    assert [label[-3:] for label in others] == ["0.3"] and "or not measured as the baseline" in told(ranked, others, "ab")[-1]


def test_a_data_set_on_which_all_have_diverged_has_a_report_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content, status in (("a", "finished"), ("b", "diverged")):
        for number in range(3):
            leave(tmp_path / "runs" / f"{content}{number}", f"optimizer.lr=0.{number + 1}", status=status, data_content=content)
    main(["runs"])
    page = (tmp_path / "runs" / "report-digits-2.html").read_text()
    assert "No group has a mean" in page and 'id="cost"' not in page
    assert 'id="cost"' in (tmp_path / "runs" / "report-digits.html").read_text()


def test_ranks_follow_the_direction_share_and_put_what_diverged_last(tmp_path):
    for content, values in (("a", (3.0, 1.0, float("nan"))), ("b", (2.0, 2.0, 1.0))):
        for number, value in enumerate(values):
            leave(
                tmp_path / f"{content}{number}",
                f"optimizer.lr=0.{number + 1}",
                metrics={"test/loss": value},
                monitor="val/loss",
                data_content=content,
            )
    ranked, _ = standings([(each, statistics.rows(each)) for each in compare_all(runs_of(tmp_path), CATALOGUE)])
    assert {each.label[-3:]: each.ranks for each in ranked} == {"0.1": (2.0, 2.5), "0.2": (1.0, 2.5), "0.3": (3.0, 1.0)}


def test_a_metric_that_was_never_measured_is_no_last_rank(tmp_path, monkeypatch, capsys):
    """A group without the metric has no rank, one that has diverged the last; data on which nobody has it makes no rank."""
    monkeypatch.chdir(tmp_path)
    for content in "abc":
        for number, status in enumerate(("finished", "finished", "diverged", "finished")):
            names = ("test/acc", "test/loss") if content != "c" and number < 3 else ("test/loss",)
            values = {name: 0.1 * number + 0.5 for name in names}
            leave(
                tmp_path / "runs" / f"{content}{number}",
                f"optimizer.lr=0.{number + 1}",
                metrics=values,
                status=status,
                data_content=content,
            )
    main(["runs", "--metric", "test/acc"])
    out = capsys.readouterr().out
    found = rows(tmp_path / "runs" / "ranks.csv")
    assert list(found[0]) == ["label", "mean_rank", "digits", "digits (2)", "digits (3)"]
    assert {row["digits (3)"] for row in found} == {""}
    assert {row["label"][-3:]: float(row["digits"]) for row in found} == {"0.1": 2.0, "0.2": 1.0, "0.3": 3.0}
    assert "Mean rank over 2 data sets" in out and "no run there has the metric: digits (3)." in out
    assert "or without the metric, or not measured as the baseline is: optimizer.lr=0.4." in out
    assert "no run there has the metric: digits (3)." in (tmp_path / "runs" / "report-digits.html").read_text()
    pages = {path.name for path in (tmp_path / "runs").glob("report-*.html")}
    main(["runs/a0", "runs/a1", "runs/c0", "runs/c1", "--metric", "test/acc", "--output", "runs"])
    assert "There are no two data sets with the metric, so there is no mean rank." in capsys.readouterr().out
    assert (
        len(pages) == 3 and len({path.name for path in (tmp_path / "runs").glob("report-*.html")}) == 2
    )  # that of digits (3) went


def test_the_command_leaves_a_table_a_figure_and_a_report_for_each_and_the_ranks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    three_sets(tmp_path / "runs")
    (tmp_path / "runs" / "report.html").write_text('<meta http-equiv="Content-Security-Policy" of an earlier comparison')
    main(["runs"])
    out = capsys.readouterr().out
    for name in ("digits", "mnist", "my.npz"):
        assert f"data {name}\n" in out and (tmp_path / "runs" / f"report-{name}.html").is_file()
        assert (tmp_path / "runs" / f"compare-{name}.png").is_file() and f"## {name}\n" in (
            tmp_path / "runs" / "compare.md"
        ).read_text()
    assert "all data\nMean rank over 3 data sets" in out and not (tmp_path / "runs" / "report.html").exists()
    table = rows(tmp_path / "runs" / "compare.csv")
    assert [row["data"] for row in table].count("mnist") == 2 and len(table) == 8
    assert [row["baseline"] for row in table].count("True") == 3
    assert {row["data"] for row in rows(tmp_path / "runs" / "runs.csv")} == {"digits", "mnist", "my.npz"}
    ranks = rows(tmp_path / "runs" / "ranks.csv")
    assert list(ranks[0]) == ["label", "mean_rank", "digits", "mnist", "my.npz"] and len(ranks) == 2
    main(["runs"])  # what it left is its own
    main(["runs/as0", "runs/as1", "runs/as2", "--output", "runs"])  # and goes when there is one data set
    left = {path.name for path in (tmp_path / "runs").iterdir() if path.is_file()}
    assert left == {"compare.csv", "runs.csv", "compare.md", "compare.tex", "compare.png", "report.html"}


def test_files_of_others_are_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    three_sets(tmp_path / "runs")
    (tmp_path / "runs" / "report-mnist.html").write_text("mine")
    with pytest.raises(SystemExit):
        main(["runs"])
    assert "report-mnist.html, which no comparison has written" in capsys.readouterr().err
    (tmp_path / "runs" / "report-mnist.html").rename(tmp_path / "runs" / "report-other.html")
    main(["runs"])
    assert (tmp_path / "runs" / "report-other.html").read_text() == "mine"


def test_no_group_on_all_data_sets_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    leave(tmp_path / "runs" / "a", "+wrapper=sam", data_content="a")
    leave(tmp_path / "runs" / "b", "+regularizer=l2", data_content="b")
    main(["runs"])
    assert "No two groups are on all 2 data sets and measured alike there, so there is no mean rank." in capsys.readouterr().out


def test_a_baseline_or_a_metric_of_one_data_set_is_taken_where_it_is(tmp_path):
    three_sets(tmp_path)
    label = "optimizer=adam +wrapper=sam"
    found = compare_all(runs_of(tmp_path), CATALOGUE, baseline=label)
    assert [each.baseline.label == label for each in found] == [True, False, True]
    found = compare_all(runs_of(tmp_path), CATALOGUE, baseline=str(tmp_path / "ad0"))
    assert all("dropout" in each.baseline.label for each in found)
    with pytest.raises(RecipeError, match="no such group or folder"):
        compare_all(runs_of(tmp_path), CATALOGUE, baseline="nowhere")
    leave(tmp_path / "extra", metrics={"test/acc": 0.1, "test/f1": 0.5}, seed=7, data_content="a" * 32)
    assert {each.metric for each in compare_all(runs_of(tmp_path), CATALOGUE, "test/f1")} == {"test/f1"}


def test_runs_that_are_not_finished_stand_beside_those_of_their_data(tmp_path):
    three_sets(tmp_path)
    leave(tmp_path / "x", "data=mnist", status="failed", error="e", data_content="b" * 32)
    leave(tmp_path / "y", "data=cifar10", status="failed", error="e")  # of data that no finished run has
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "result.json").write_text("{")
    found = compare_all(runs_of(tmp_path), CATALOGUE)
    assert [sorted(run.folder.name for run in each.unfinished) for each in found] == [["y", "z"], ["x"], []]


def test_data_sets_of_one_name_are_told_apart(tmp_path):
    for number, words in enumerate(
        [npz("a/x.npz"), npz("b/x.npz"), npz("y.npz", "data.target=z"), npz("y.npz"), (), ("data.split_seed=1",)]
    ):
        leave(tmp_path / str(number), *words, data_content=str(number))
    found = names(by_data(runs_of(tmp_path)))
    assert found == ["x.npz path=a/x.npz", "x.npz path=b/x.npz", "y.npz target=z", "y.npz target=y", "digits", "digits (2)"]
    parts = as_file([*found, "../../x", "..", "Digits", "a" * 300])
    assert len({part.lower() for part in parts}) == len(parts)
    assert all(part and "/" not in part and part.strip(".") == part and len(part) < 50 for part in parts)


def test_one_group_on_each_of_two_data_sets_is_named_by_what_it_has(tmp_path):
    for content in "ab":
        leave(tmp_path / content, "+regularizer=l2", data_content=content)
    assert {group.label for each in compare_all(runs_of(tmp_path), CATALOGUE) for group in each.groups} == {"+regularizer=l2"}
    leave(tmp_path / "c", seed=0, data_content="a")
    labels = [[group.label for group in each.groups] for each in compare_all(runs_of(tmp_path), CATALOGUE)]
    assert labels == [["+regularizer=l2", NOTHING_ADDED], ["+regularizer=l2"]]


def standing_of(ranks):
    return [Standing(str(place), tuple(column)) for place, column in enumerate(np.array(ranks, float).T)]


def test_the_test_of_ranks_is_friedmans_exact_where_there_are_few_data_sets():
    assert friedman(standing_of([[1, 2, 3]] * 3)) == pytest.approx(1 / 36)  # the tables of Friedman (1937)
    assert friedman(standing_of([[1, 2, 3]] * 4)) == pytest.approx(1 / 216)
    assert friedman(standing_of([[1, 2, 3, 4]] * 3)) == pytest.approx(1 / 576)
    wins = [[1, 2]] * 7 + [[2, 1]] * 2
    assert friedman(standing_of(wins)) == pytest.approx(stats.binomtest(2, 9).pvalue)  # the sign test
    assert friedman(standing_of([[1.5, 1.5]] * 3)) == 1.0


def test_the_test_of_ranks_is_that_of_scipy_where_there_are_many():
    random = np.random.default_rng()
    values = random.normal([0, 0.1, 0.2, 0.3, 0.6], size=(40, 5))
    ranks = stats.rankdata(values, axis=1)
    assert friedman(standing_of(ranks)) == pytest.approx(stats.friedmanchisquare(*ranks.T).pvalue, abs=0.02)
    assert friedman(standing_of(ranks)) == friedman(standing_of(ranks))


@pytest.mark.parametrize(("methods", "quantile"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_the_table(methods, quantile):
    """Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, table 5."""
    expected = quantile * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(expected, abs=2e-3)


def test_ranks_stand_in_each_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    three_sets(tmp_path / "runs")
    main(["runs"])
    assert "Friedman's test: p = " in capsys.readouterr().out
    for name in ("digits", "mnist", "my.npz"):
        text = (tmp_path / "runs" / f"report-{name}.html").read_text()
        assert '<section id="ranks"' in text and "Friedman&#x27;s test" in text and ">mean rank</th>" in text
