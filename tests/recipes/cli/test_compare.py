import csv
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from recipes.cli.compare import last_sweep, main
from recipes.compare.present import present
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.config.errors import from_cell
from recipes.run import train
from tests.command import ROOT, command, mistake
from tests.recipes.compare.fabricated import leave, leave_group

FILES = {"compare.csv", "runs.csv", "compare.md", "compare.tex", "compare.png", "report.html"}
VALUES = [0.81, 0.84, 0.79, 0.86, 0.83], [0.85, 0.83, 0.84, 0.9, 0.82]
SMALL = ("model=linear", "max_steps=30", "logger=csv", "trainer.progress=false", "trainer.accelerator=cpu")
SMALL += ("trainer.val_every_n_steps=10",)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A folder as `train.py -m +regularizer=[],[dropout],[l2] seed=0,1,2` leaves it, in multirun/DATE/TIME."""
    folder = tmp_path_factory.mktemp("work") / "multirun" / "2026-01-01" / "10-00-00"
    number = 0
    for choice in ("[]", "[label_smoothing]", "[l2]"):
        for seed in (0, 1, 2):
            words = [f"+regularizer={choice}", f"seed={seed}", *SMALL]
            (folder / str(number)).mkdir(parents=True)
            train.train(finish(Catalogue(), compose(words), words), folder / str(number), words)
            number += 1
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def two_groups(place, **result):
    leave_group(place, "a", VALUES[0], **result)
    leave_group(place, "b", VALUES[1], "+regularizer=dropout", **result)


def refused(capsys, *words):
    """The one line that a mistake gives."""
    with pytest.raises(SystemExit) as exit:
        main(list(words))
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert exit.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def read(path):
    with open(path, newline="") as file:
        return [{name: from_cell(text) for name, text in row.items()} for row in csv.DictReader(file)]


# A real sweep


def test_the_statistics_of_a_real_sweep_are_those_of_its_runs(sweep):
    done = command("compare.py", cwd=sweep.parents[2], forked=True)  # the last sweep
    assert done.returncode == 0 and done.stderr == ""
    assert {path.name for path in sweep.iterdir() if path.is_file()} == FILES
    of_runs, of_groups = read(sweep / "runs.csv"), read(sweep / "compare.csv")
    assert len(of_runs) == 9 and len(of_groups) == 3
    by_label = {}
    for row in of_runs:
        result = json.loads((sweep.parents[2] / row["folder"] / "result.json").read_text())
        assert all(float(row[name]) == value for name, value in result["metrics"].items())
        assert float(row["seconds"]) == result["seconds"] and int(row["seed"]) == result["seed"]
        by_label.setdefault(row["label"], {})[int(row["seed"])] = row
    labels = {"nothing added", "+regularizer=label_smoothing", "+regularizer=l2"}
    assert set(by_label) == labels == {row["label"] for row in of_groups}
    values = {label: np.array([float(some[seed]["test/acc"]) for seed in range(3)]) for label, some in by_label.items()}
    base, raw = values["nothing added"], {}
    for row in of_groups:
        ours = values[row["label"]]
        assert float(row["mean"]) == pytest.approx(ours.mean())
        assert float(row["deviation"]) == pytest.approx(ours.std(ddof=1))
        ends = stats.t.interval(0.95, 2, ours.mean(), stats.sem(ours))
        assert (float(row["interval_low"]), float(row["interval_high"])) == pytest.approx(ends)
        seconds = np.mean([float(one["seconds"]) for one in by_label[row["label"]].values()])
        assert float(row["seconds"]) == pytest.approx(seconds)
        if row["baseline"] == "True":
            assert row["label"] == "nothing added" and row["difference"] == ""
            continue
        assert float(row["difference"]) == pytest.approx((ours - base).mean(), abs=1e-12)
        if np.ptp(ours - base) > 1e-12:
            test = stats.ttest_rel(ours, base)
            ends = tuple(test.confidence_interval(0.95))
            assert (float(row["difference_low"]), float(row["difference_high"])) == pytest.approx(ends)
            assert float(row["p"]) == pytest.approx(test.pvalue)
            raw[row["label"]] = test.pvalue
        else:
            assert row["p"] == "" and row["difference_low"] == ""
    corrected = {row["label"]: float(row["p_corrected"]) for row in of_groups if row["p_corrected"]}
    small, *large = sorted(raw, key=raw.get)
    assert corrected[small] == pytest.approx(min(1, len(raw) * raw[small]))
    assert all(corrected[label] == pytest.approx(max(corrected[small], raw[label])) for label in large)
    means = [float(row["mean"]) for row in of_groups]
    assert means == sorted(means, reverse=True)
    for word in (*labels, "test/acc, larger is better", "Baseline: nothing added", "few seeds", "seed=0,1,2,3,4"):
        assert word in done.stdout
    for name, file in (("figure", "compare.png"), ("report", "report.html")):
        assert f"{name}   {sweep.relative_to(sweep.parents[2])}/{file}\n" in done.stdout


def test_a_second_comparison_replaces_the_files_and_counts_the_same_runs(sweep):
    present([sweep])
    before = read(sweep / "compare.csv")
    present([sweep], sort="label")
    assert sorted(read(sweep / "compare.csv"), key=lambda row: row["label"]) == sorted(before, key=lambda row: row["label"])
    assert not list(sweep.glob("*.part-*"))


def test_two_runs_are_compared_and_leave_the_files_elsewhere(sweep, work, capsys):
    main([str(sweep / "0"), str(sweep / "3"), "--metric", "val/loss"])
    (folder,) = (work / "comparisons").glob("*/*")
    assert {path.name for path in folder.iterdir()} == FILES
    text = capsys.readouterr().out
    assert "val/loss, smaller is better" in text and "All groups: one run says nothing about chance" in text
    assert [row["p"] for row in read(folder / "compare.csv")] == ["", ""]


# What is written where


def test_the_files_go_where_they_are_asked_for(work):
    two_groups(work / "runs")
    main(["runs", "--output", "new/folder"])
    assert {path.name for path in (work / "new" / "folder").iterdir()} == FILES
    assert not (work / "runs" / "compare.csv").exists() and not (work / "comparisons").exists()


def test_a_run_folder_is_left_alone(work):
    leave(work / "run")
    main(["run"])
    assert [path.name for path in (work / "run").iterdir()] == ["result.json"]
    assert len(list((work / "comparisons").glob("*/*/compare.csv"))) == 1


def test_present_returns_the_comparison(work):
    two_groups(work / "runs")
    (found,) = present([work / "runs"], output=work / "out", baseline="+regularizer=dropout", sort="seconds")
    assert found.baseline.label == "+regularizer=dropout" and len(found.runs) == 10
    assert (work / "out" / "report.html").exists()


def test_a_baseline_elsewhere_is_taken_in(work):
    leave_group(work / "new", "b", VALUES[1], "+regularizer=dropout")
    leave_group(work / "old", "a", VALUES[0])
    main(["new", "--baseline", "old"])
    rows = read(work / "new" / "compare.csv")
    assert [(row["label"], row["baseline"]) for row in rows] == [("+regularizer=dropout", "False"), ("nothing added", "True")]


def test_groups_can_be_named(work, capsys):
    leave_group(work / "a", "a", VALUES[0])
    leave_group(work / "b", "b", VALUES[1], "+regularizer=dropout", "optimizer=adam")
    main(["Plain SGD=a", "b", "--output", "out"])
    assert {row["label"] for row in read(work / "out" / "runs.csv")} == {"Plain SGD", "optimizer=adam +regularizer=dropout"}
    main(["Plain SGD=a", "Adam=b", "--output", "out", "--baseline", "Adam"])
    assert [(row["label"], row["baseline"]) for row in read(work / "out" / "compare.csv")] == [
        ("Adam", "True"),
        ("Plain SGD", "False"),
    ]
    (work / "x=y").mkdir()
    (work / "b").rename(work / "x=y" / "b")
    main(["x=y", "a", "--output", "out"])  # a folder with such a name
    assert "Adam" not in capsys.readouterr().out.rpartition("test/acc, larger")[2]


def test_a_name_may_hold_an_equals_sign(work):
    leave_group(work / "a", "a", VALUES[0])
    leave_group(work / "x=y", "b", VALUES[1], "optimizer.lr=0.3")
    main(["lr=0.1=a", "lr = 0.3=x=y", "--output", "out"])
    assert {row["label"] for row in read(work / "out" / "compare.csv")} == {"lr=0.1", "lr = 0.3"}


def test_a_name_of_several_groups_stands_before_what_sets_them_apart(work):
    for name, optimizer in (("p1", "sgd"), ("p2", "adam")):
        for rate in (0.1, 0.2):
            leave_group(work / name, f"{rate}-", VALUES[0], f"optimizer={optimizer}", f"optimizer.lr={rate}")
    main(["SGD=p1", "Adam=p2", "--output", "out", "--baseline", "SGD: optimizer.lr=0.2"])
    rows = read(work / "out" / "compare.csv")
    assert {row["label"] for row in rows} == {f"{name}: optimizer.lr={rate}" for name in ("SGD", "Adam") for rate in (0.1, 0.2)}
    main(["SGD=p1", "p2", "--output", "out"])
    labels = {row["label"] for row in read(work / "out" / "compare.csv")}
    assert "SGD: optimizer.lr=0.1" in labels and "optimizer=adam optimizer.lr=0.1" in labels
    main(["One=p1", "One=p2", "--output", "out"])  # one name for two places
    assert "One: optimizer=adam optimizer.lr=0.2" in {row["label"] for row in read(work / "out" / "compare.csv")}


@pytest.mark.parametrize("name", ["compare.csv", "compare.png", "report.html"])
def test_what_cannot_be_written_does_not_keep_the_rest_from_being_written(work, capsys, name):
    two_groups(work / "runs")
    (work / "runs" / name).mkdir()
    with pytest.raises(SystemExit):
        main(["runs"])
    printed = capsys.readouterr()
    assert f"error: runs/{name} cannot be written" in printed.err and "not written" in printed.out
    others = {"compare.png", "report.html"} - {name}
    assert all((work / "runs" / other).is_file() and f" runs/{other}\n" in printed.out for other in others)


def test_the_last_sweep_is_the_newest_that_holds_runs(work):
    for name in ("2026-01-02/09-00-00", "2026-01-02/10-00-00", "2025-12-31/23-00-00"):
        two_groups(work / "multirun" / name)
    (work / "multirun" / "2026-01-03" / "08-00-00").mkdir(parents=True)
    assert last_sweep(work / "multirun") == work / "multirun" / "2026-01-02" / "10-00-00"


def test_runs_that_are_not_finished_are_listed_with_folder_and_reason(work, capsys):
    two_groups(work / "runs")
    leave(work / "runs" / "x", "+wrapper=sam", status="failed", error="CUDA out of memory [of 8]")
    leave(work / "runs" / "y", seed=9, status="stopped", stopped_by="SIGTERM")
    (work / "runs" / "z").mkdir()
    (work / "runs" / "z" / "result.json").write_text('{"status": "fini')
    main(["runs"])
    text = capsys.readouterr().out
    assert "3 runs are not finished and not in the table: 1 failed, 1 stopped, 1 broken." in text
    assert "failed runs/x: CUDA out of memory [of 8]\n" in text and "stopped runs/y: SIGTERM\n" in text
    assert re.search(r"broken runs/z: runs/z/result.json cannot be read: .*\n", text)


def test_a_diverged_run_is_in_the_files(work, capsys):
    leave_group(work / "runs", "a", VALUES[0])
    leave_group(work / "runs", "b", [0.9, math.nan, 0.9, 0.9, 0.9], "+regularizer=dropout")
    main(["runs"])
    rows = read(work / "runs" / "compare.csv")
    assert rows[1]["label"] == "+regularizer=dropout" and rows[1]["mean"] == "nan" and rows[1]["difference"] == ""
    assert "nan" in [row["test/acc"] for row in read(work / "runs" / "runs.csv")]
    assert "1 of 5 runs gave no number for test/acc (seed 1)" in capsys.readouterr().out


def test_one_group_has_no_differences_and_is_told_what_to_run(work, capsys):
    leave_group(work / "runs", "a", VALUES[0])
    main(["runs"])
    text = capsys.readouterr().out
    assert "difference" not in text
    assert "There is one group only. For a comparison: python train.py -m '+regularizer=[],[l2]' seed=0,1,2,3,4" in text


def test_two_hundred_groups_are_compared(work, capsys):
    leave(work / "runs" / "0-0")
    text = (work / "runs" / "0-0" / "result.json").read_text()
    for group in range(200):
        for seed in (0, 1):
            folder = work / "runs" / f"{group}-{seed}"
            folder.mkdir(exist_ok=True)
            result = json.loads(text)
            result["config"]["seed"], result["config"]["optimizer"]["lr"] = seed, (group + 1) / 1000
            result["metrics"]["test/acc"] = 0.5 + 0.3 * math.sin(7 * group + seed)
            (folder / "result.json").write_text(json.dumps(result))
    main(["runs"])
    assert len(read(work / "runs" / "compare.csv")) == 200
    out = capsys.readouterr().out
    assert all(f"optimizer.lr={(group + 1) / 1000} " in out for group in range(200))


# Mistakes


def test_a_mistake_is_one_line_and_no_traceback(work):
    two_groups(work / "runs")
    line = mistake("runs", "--basline", "x", cwd=work, forked=True, script="compare.py")
    assert line == "error: there is no flag --basline; did you mean --baseline?"
    assert not (work / "runs" / "compare.csv").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sorted=n"], "did you mean --sort?"),
        (["--xyz"], "there is --help, --baseline, --metric, --mode, --sort, --output, --wandb"),
        (["--base", "x"], "there is no flag --base; did you mean --baseline?"),
        (["--metric"], "--metric: expected one argument"),
        (["--metric", "test/lss"], "there is no metric test/lss; did you mean --metric test/loss?"),
        (
            ["--baseline", "+regularizer=dopout"],
            "did you mean +regularizer=dropout? There is 'nothing added', +regularizer=dropout",
        ),
        (["--baseline", "runs"], "the folder holds runs of 2 groups; name one: 'nothing added', +regularizer=dropout"),
        (["--baseline", "failed"], "the folder holds no finished run"),
        (["--sort", "men"], "did you mean --sort mean?"),
        (["nowhere"], "there is no folder nowhere"),
        (["A=nowhere"], "there is no folder nowhere"),
        (["A="], "there is no folder A="),
        (["=runs"], "=runs: there is no name before the =; type NAME=FOLDER"),
        ([" =runs"], "there is no name before the ="),
        (["A=runs/a0", "B=runs/a0"], "runs/a0 has two names, A and B; give it one"),
        (["A=runs/a0", "B=runs"], "runs/a0 has two names, A and B; give it one"),
        (["A=runs/a0", "B=runs/a1"], "A and B: these runs differ in nothing but the seed; give them one name"),
        (["nothing added=runs/b0"], "nothing added=FOLDER: 2 groups would have the name nothing added; take another one"),
        (["metric=test/acc"], "there is no folder metric=test/acc; did you mean --metric test/acc?"),
        (["empty"], "empty is no run and holds none"),
        (["--output", "file"], "the output folder file cannot be written (File exists); choose another one: --output FOLDER"),
    ],
)
def test_mistakes(work, capsys, words, told):
    two_groups(work / "runs")
    leave(work / "runs" / "c", seed=9, metrics={"test/acc": 0.5, "test/loss": 1.0})
    leave(work / "failed" / "a", status="failed", error="e")
    (work / "empty").mkdir()
    (work / "file").write_text("")
    assert told in refused(capsys, "runs", *words)
    assert not list(work.rglob("compare.*"))


def test_no_sweep_is_a_mistake_that_tells_how_to_start_one(work, capsys):
    assert "no sweep has left a run in multirun/: name folders, or start one: python train.py -m" in refused(capsys)


def test_no_finished_run_is_a_mistake(work, capsys):
    leave(work / "runs" / "a", status="failed", error="the loss is not a number")
    line = refused(capsys, "runs")
    assert line == "error: none of 1 runs is finished (1 failed); runs/a: the loss is not a number"


def test_a_broken_result_alone_is_a_mistake(work, capsys):
    (work / "result.json").write_text("{")
    assert "1 broken" in refused(capsys, ".") and not (work / "compare.csv").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_cannot_be_written_is_a_mistake(work, capsys):
    two_groups(work / "runs")
    (work / "runs").chmod(0o500)
    try:
        assert "not permitted" in refused(capsys, "runs")
    finally:
        (work / "runs").chmod(0o700)


def test_help_shows_what_to_type(work):
    done = command("compare.py", "--help", cwd=work, forked=True)
    assert done.returncode == 0 and done.stderr == ""
    for word in ("--baseline", "--metric", "--sort", "--output", "--wandb", "python compare.py", "compare.tex", "runs.csv"):
        assert word in done.stdout
    for word in ('"lightning-recipes[workspace]"', "wandb-workspace.json"):
        assert word in done.stdout


def test_neither_help_nor_a_comparison_loads_torch(work):
    two_groups(work / "runs")
    heavy = "{'torch', 'lightning', 'sklearn', 'pandas', 'wandb'}"
    code = (
        "import sys, recipes.cli.compare as c; "
        "assert not {'numpy', 'scipy', 'matplotlib', 'hydra', *" + heavy + "} & set(sys.modules); "
        "c.main(['runs']); assert not " + heavy + " & set(sys.modules), set(sys.modules) & " + heavy
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=work, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
