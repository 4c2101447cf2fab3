"""Runs and sweeps killed with kill -9, and resumed, end as if nothing had happened."""

import csv
import json
import os
import random
import signal
import subprocess
import time

import pytest

from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.run.train import train
from tests.command import LIMIT, arguments, command, variables

WORDS = (
    *("model=mlp", "model.hidden=[24]", "max_epochs=10", "logger=[]", "trainer.accelerator=cpu"),
    *("trainer.save_every_n_steps=2", "trainer.val_every_n_steps=11", "trainer.log_every_n_steps=1"),
    *("+averaging=ema", "+regularizer=[dropout]", "+augmentation=[mixup]", "optimizer=momentum", "scheduler=one_cycle"),
    *("+stopping=early", "stopping.patience=10", "+guard=nan_rollback", "guard.nan_rollback.every_n_steps=5", "+wrapper=sam"),
    *("+diagnostics=gradient_stats", "diagnostics.gradient_stats.every_n_steps=3"),
)
RECORDS = ("histograms.csv", "confusion.json", "pictures/mixup.png")
MOMENTS = ("start", "training", "writing")
chance = random.Random()  # a run in this process seeds the one of all


def start(folder, *words):
    return subprocess.Popen(
        arguments("train.py", *words), cwd=folder.parent, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def first_words(folder):
    return (*WORDS, f"hydra.run.dir={folder}")


def rows(folder):
    """How many rows the run has logged: one a step, and one each validation."""
    file = folder / "metrics.csv"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def kill(process, folder, moment, first, last):
    """Kill a process at a random moment between two steps of the run: at its start, while it trains, or while it writes."""
    until, limit = time.monotonic() + chance.uniform(0, 6), chance.randint(first, last)
    while process.poll() is None and rows(folder) < limit and (moment != "start" or time.monotonic() < until):
        time.sleep(0.001)
    while moment == "writing" and process.poll() is None and not list(folder.glob("checkpoints/*.part-*")):
        pass
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL, f"{moment}: the run ended by itself at row {rows(folder)} of {limit}"


def go_on(folder):
    """Resume a killed run, in a new process; start it anew if it had left nothing, in which case it is no run."""
    if (folder / "config.yaml").exists():
        return start(folder, f"resume={folder}")
    refused = start(folder, f"resume={folder}")
    out, _ = refused.communicate(timeout=LIMIT)
    assert refused.returncode == 2 and b"is no run" in out
    return start(folder, *first_words(folder))


def go_on_to_the_end(folder):
    """The same, with what was left at its end; how a process starts is not what is tested."""
    done = command("train.py", f"resume={folder}", cwd=folder.parent, forked=True)
    if not (folder / "config.yaml").exists():
        assert done.returncode == 2 and "is no run" in done.stderr
        done = command("train.py", *first_words(folder), cwd=folder.parent, forked=True)
    assert done.returncode == 0, done.stderr
    return left_in(folder)


def end_of(process, folder):
    """Wait for the end; what was left."""
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, out.decode()
    return left_in(folder)


def left_in(folder):
    """The result, all rows of metrics.csv, and the further records."""
    assert not list(folder.rglob("*.part-*"))
    with open(folder / "metrics.csv", newline="") as file:
        logged = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    return json.loads((folder / "result.json").read_text()), logged, [(folder / name).read_bytes() for name in RECORDS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    train(finish(Catalogue(), compose(WORDS), WORDS), folder, WORDS)
    return left_in(folder)


def assert_same(found, whole):
    (result, logged, records), (expected, all_logged, all_records) = found, whole
    for name in ("status", "metrics", "best_step", "steps", "epochs", "techniques", "monitor"):
        assert result[name] == expected[name], name
    assert logged == all_logged
    assert records == all_records


@pytest.mark.slow
def test_a_run_killed_three_times(tmp_path, whole):
    folder = tmp_path / "run"
    process = start(folder, *first_words(folder))
    for number, moment in enumerate(MOMENTS):
        kill(process, folder, moment, 100 * number + 10, 100 * number + 90)  # of 400 steps
        process = go_on(folder)
    assert_same(end_of(process, folder), whole)


@pytest.mark.slow
def test_runs_killed_at_random_moments(tmp_path, whole):
    for number in range(5):
        folder = tmp_path / str(number)
        kill(start(folder, *first_words(folder)), folder, chance.choice(MOMENTS), 1, 350)
        assert_same(go_on_to_the_end(folder), whole)


PHASES = (
    *("data=fashion_mnist", "data.validation=0.05", "data.train_samples=2000", "model=cnn", "model.channels=[8,16]"),
    *("optimizer=adam", "optimizer.lr=0.01", "stopping.patience=1", "max_epochs=30", "logger=[]", "trainer.accelerator=cpu"),
    *("trainer.save_every_n_steps=4", "trainer.log_every_n_steps=1"),
)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["early_retrain", "early_continue"])
def test_a_run_killed_in_its_second_phase(tmp_path, option):
    """Early stopping finds by itself when to stop, and what is killed behind it goes on in the second phase."""
    if not (root := os.environ.get("FASHION_MNIST_ROOT")):
        pytest.skip("FASHION_MNIST_ROOT does not name a folder with fashion_mnist.npz")
    words = (*PHASES, f"data.root={root}", f"+stopping={option}")
    done = command("train.py", *words, f"hydra.run.dir={tmp_path / 'whole'}", cwd=tmp_path, forked=True)
    expected = json.loads((tmp_path / "whole" / "result.json").read_text())
    first, second = expected["phase_results"]
    assert first["stopped_early"] and first["best_step"] < first["steps"] < 30 * 32 and "phase 2, " in done.stdout
    assert second["metrics"]["val/acc"] > 0.5 and 0.5 < expected["metrics"]["test/acc"] < 1

    folder = tmp_path / "run"
    process = start(folder, *words, f"hydra.run.dir={folder}")
    begun = first["steps"] + chance.randint(6, min(40, second["steps"] - 5))
    while process.poll() is None and last_step(folder) < begun:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    resumed = command("train.py", f"resume={folder}", cwd=tmp_path, forked=True)
    assert resumed.returncode == 0 and "phase 2, " not in resumed.stdout  # which had begun
    found = json.loads((folder / "result.json").read_text())
    for name in ("status", "metrics", "best_step", "steps", "epochs", "phases", "phase_begins", "stopped_early"):
        assert found[name] == expected[name], name
    without = [[{**phase, "seconds": 0} for phase in result["phase_results"]] for result in (found, expected)]
    assert without[0] == without[1]
    assert (folder / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def last_step(folder):
    """The step of the last whole row that the run has logged."""
    file = folder / "metrics.csv"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return int(lines[-1].split(",")[lines[0].split(",").index("step")]) if len(lines) > 1 else 0


SWEEP = ("-m", "+regularizer=[],[dropout],[l2]", "seed=range(10)", "model=mlp", "model.hidden=[24]", "max_epochs=6")
SWEEP += ("logger=csv", "trainer.accelerator=cpu", "hydra.launcher.n_jobs=2")
COSTS = ("seconds", "memory")


def finished(folder):
    """The jobs of a sweep that have ended well."""
    texts = [path.read_text() for path in folder.glob("*/result.json")]
    return sum(json.loads(text)["status"] == "finished" for text in texts)


def table_of(folder):
    """The comparison at a sweep's end, without what depends on the machine's load."""
    with open(folder / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not any(cost in name for cost in COSTS)} for row in rows]


def children(process):
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return [int(number) for number in file.read().split()]


@pytest.mark.slow
def test_a_sweep_of_thirty_jobs_killed_three_times(tmp_path):
    assert command("train.py", *SWEEP, "sweep=whole", cwd=tmp_path, forked=True, timeout=900).returncode == 0
    assert finished(tmp_path / "whole") == 30
    folder = tmp_path / "broken"
    for number, with_jobs in enumerate((False, True, False)):
        until = finished(folder) + chance.randint(2, 5)
        words = SWEEP if number == 0 else ()  # later on the folder is enough
        process = subprocess.Popen(arguments("train.py", *words, "sweep=broken"), cwd=tmp_path, env=variables())
        while finished(folder) < until:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))  # in which a few more jobs end, never all of them
        for job in children(process) if with_jobs else ():  # as when a machine loses power
            os.kill(job, signal.SIGKILL)
        process.kill()
        process.wait()
        assert finished(folder) < 30
    assert command("train.py", "sweep=broken", cwd=tmp_path, forked=True, timeout=900).returncode == 0
    assert finished(folder) == 30
    assert table_of(folder) == table_of(tmp_path / "whole")
