"""Jobs that a real Slurm interrupts, puts back into its queue and starts again end as if nothing had happened."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.slurm import wait_for
from tests.command import ROOT, arguments, command, variables

APART = ("seconds", "samples_per_second", "peak_memory", "wandb", "git_commit")
WORDS = (
    *("model=mlp", "max_epochs=20", "trainer.accelerator=cpu", "trainer.progress=false", "trainer.val_every_n_steps=17"),
    *("+regularizer=[dropout]", "+averaging=ema", "optimizer=momentum", "data.batch_size=16", "trainer.log_every_n_steps=1"),
)
TWO = ("trainer=ddp", "trainer.num_nodes=2", "trainer.devices=1")
ONE = ("trainer=ddp", "trainer.num_nodes=1", "trainer.devices=1")


def result_of(folder):
    """What does not depend on the time it took, nor on how a sweep writes words."""
    result = json.loads((folder / "result.json").read_text())
    words = sorted(word.lower() for word in result["command"])
    return {name: value for name, value in result.items() if name not in APART} | {"command": words}


def rows_of(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def expect_same(folder, whole):
    found, expected = result_of(folder), result_of(whole)
    # the last digit of a sum over a batch depends on where it lies in memory
    assert found == expected | {"metrics": pytest.approx(expected["metrics"], rel=1e-5)}
    assert rows_of(folder) == [pytest.approx(row, rel=1e-5) for row in rows_of(whole)]  # each step once, and no other
    assert len({path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")}) == 1  # one run's id


def expect_nothing_lost(log, times):
    """Each time the run goes on from the step at which it was stopped."""
    text = log.read_text()
    stopped = re.findall(r"stopped by SIG\w+ at step (\d+); the state of step \1 is saved", text)
    assert len(stopped) == times and re.findall(r"going on from step (\d+)", text) == stopped


def interrupt(slurm, number, folder, how, starts):
    """Interrupt a job some steps after its `starts`-th start, and hasten its return."""
    log = folder / "train.log"
    wait_for(lambda: log.read_text().count(" started: ") + log.read_text().count(" resumed: ") == starts, 90)
    before = len(rows_of(folder)) if (folder / "metrics.csv").exists() else 0
    wait_for(lambda: len(rows_of(folder)) > before + 15, 60)
    if how == "requeue":
        slurm.control("scontrol", "requeue", number)
    else:
        slurm.control("scancel", f"--signal={how}", number)
    come_back(slurm, number, starts)


def come_back(slurm, number, starts, seconds=60):
    """Wait until a job is in the queue again, and let it start at once instead of after two minutes."""
    wait_for(lambda: slurm.state(number)["Restarts"] == str(starts), seconds, lambda: str(slurm.state(number)))
    wait_for(lambda: slurm.state(number)["JobState"] == "PENDING", 60, lambda: str(slurm.state(number)))
    hasten(slurm, number)


def hasten(slurm, number):
    """Let a job start now; in the second in which it was ended the nodes would take it for the one that they have to end."""
    time.sleep(2)
    slurm.control("scontrol", "update", f"JobId={number}", "StartTime=now")


@pytest.fixture(scope="module")
def whole(slurm, tmp_path_factory):
    """The run that nobody interrupts, on two nodes."""
    place = tmp_path_factory.mktemp("whole")
    words = [*WORDS, *TWO, "seed=0", "hydra/launcher=slurm", "sweep=whole"]
    assert command("train.py", "-m", *words, cwd=place, timeout=200, **slurm.environment).returncode == 0
    return place / "whole" / "0"


@pytest.mark.parametrize("signals", [("USR1", "USR2"), ("USR2", "requeue")], ids="-".join)
def test_a_sweeps_job_on_two_nodes_comes_back_twice(slurm, whole, tmp_path, signals):
    words = ["-m", *WORDS, *TWO, "seed=0", "hydra/launcher=slurm", "sweep=mine"]
    process = subprocess.Popen(
        arguments("train.py", *words), cwd=tmp_path, env=variables(**slurm.environment), stdout=subprocess.PIPE
    )
    folder = tmp_path / "mine" / "0"
    wait_for((folder / "slurm-job.txt").exists, 60)
    number = (folder / "slurm-job.txt").read_text().strip()
    for starts, how in enumerate(signals, 1):
        interrupt(slurm, number, folder, how, starts)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and b"val/acc" in out
    expect_nothing_lost(folder / "output.log", 2)
    expect_same(folder, whole)


def sbatch(slurm, place, *words, options=()):
    """Submit the script of the documentation; the job's number and the run's folder."""
    (place / "train.py").symlink_to(ROOT / "train.py")
    python = Path(sys.executable).parent  # the script says `python`
    path = f"{python}:{slurm.environment['PATH']}"
    environment = variables(**slurm.environment | {"PATH": path, "PYTHONPATH": str(ROOT)})
    sized = ["--ntasks-per-node=1", "--gpus-per-node=1", *options]
    done = subprocess.run(
        ["sbatch", "--parsable", *sized, str(ROOT / "docs" / "train.sbatch"), *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    number = done.stdout.strip()
    return number, place / "outputs" / f"slurm-{number}"


def expect_completed(slurm, number, place, seconds=150):
    def log():
        return (place / f"train-{number}.log").read_text()[-4000:]

    def ended():
        state = slurm.state(number)["JobState"]
        if state == "PENDING":  # at its time limit once more
            hasten(slurm, number)
        return state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")

    wait_for(ended, seconds, log)
    state = slurm.state(number)
    assert (state["JobState"], state["ExitCode"]) == ("COMPLETED", "0:0"), log()


@pytest.mark.parametrize("signals", [("USR1", "USR1"), ("requeue", "USR2")], ids="-".join)
def test_a_plain_job_on_two_nodes_comes_back_twice(slurm, whole, tmp_path, signals):
    number, folder = sbatch(slurm, tmp_path, *WORDS, "seed=0")
    for starts, how in enumerate(signals, 1):
        interrupt(slurm, number, folder, how, starts)
    expect_completed(slurm, number, tmp_path)
    assert len(os.listdir(tmp_path / "outputs")) == 1
    expect_nothing_lost(tmp_path / f"train-{number}.log", 2)
    expect_same(folder, whole)


def test_a_plain_job_at_its_time_limit_comes_back(slurm, tmp_path):
    words = [*(word for word in WORDS if "epochs" not in word and "log_every" not in word), "max_epochs=200"]
    number, folder = sbatch(slurm, tmp_path, *words, options=["--nodes=1", "--time=1", "--signal=USR1@40"])
    come_back(slurm, number, 1, seconds=100)
    expect_completed(slurm, number, tmp_path)
    done = command("train.py", *words, *ONE, "hydra.run.dir=whole", cwd=tmp_path, timeout=150)
    assert done.returncode == 0
    expect_same(folder, tmp_path / "whole")
