"""Jobs that a real Slurm interrupts, puts back into its queue and starts again end as if nothing had happened.

Each run has two phases of 120 and 60 steps, 80 steps to the first epoch and validations every 17 steps, and is interrupted twice.
"""

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.gates import Gates
from tests.cluster.slurm import wait_for
from tests.command import ROOT, command, variables

APART = ("seconds", "samples_per_second", "peak_memory", "wandb", "git_commit", "slurm_job")
WORDS = (
    *("model=mlp", "max_steps=120", "trainer.accelerator=cpu", "trainer.progress=false", "trainer.val_every_n_steps=17"),
    *("+regularizer=[dropout]", "+averaging=ema", "optimizer=momentum", "data.batch_size=16", "trainer.log_every_n_steps=1"),
    *("+diagnostics=[gates]", "diagnostics.gates.again=60", "seed=0"),
)
TWO = ("trainer=ddp", "trainer.num_nodes=2", "trainer.devices=1")
# a step and a validation amid the first phase and amid the second one
STEP, VALIDATION, SECOND_STEP, SECOND_VALIDATION = "step-20", "validation-51", "step-130", "validation-154"


def result_of(folder):
    """What does not depend on the time it took, nor on how a sweep writes words; of each phase too."""
    result = json.loads((folder / "result.json").read_text())
    words = sorted(word.lower() for word in result["command"])
    (entry,) = result["history"]  # nothing was changed on the way; it tells the command and the commit once more
    assert entry["step"] == 0 and not entry["changed"]
    phases = [{name: value for name, value in phase.items() if name not in APART} for phase in result["phase_results"]]
    kept = {name: value for name, value in result.items() if name not in (*APART, "history")}
    return kept | {"command": words, "phase_results": phases}


def rows_of(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def expect_same(folder, whole):
    found, expected = result_of(folder), result_of(whole)
    assert found["phases"] == 2 and found["steps"] == 180
    # the last digit of a sum over a batch depends on where it lies in memory
    phases = [phase | {"metrics": pytest.approx(phase["metrics"], rel=1e-5)} for phase in expected["phase_results"]]
    assert found == expected | {"metrics": pytest.approx(expected["metrics"], rel=1e-5), "phase_results": phases}
    assert rows_of(folder) == [pytest.approx(row, rel=1e-5) for row in rows_of(whole)]  # each step once, and no other
    assert len({path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")}) == 1  # one run's id


def expect_equal_ranks(gates):
    (weights,) = gates.weights().values()
    assert len(weights) == 2 and len(set(weights)) == 1


def stops(text):
    """The steps at which a run has said that it was stopped."""
    return re.findall(r"stopped by SIG\w+ at step (\d+); the state of step \1 is saved", text)


def expect_nothing_lost(log, *gates):
    """Each time the run was stopped after the step in flight, or after that in which all ranks knew, and went on from there."""
    text = log.read_text()
    assert re.findall(r"going on from step (\d+)", text) == stops(text)
    steps = [int(gate.rpartition("-")[2]) for gate in gates]
    assert all(int(stop) - step in (0, 1) for stop, step in zip(stops(text), steps, strict=True)), stops(text)


def interrupt(slurm, gates, number, log, gate, how):
    """Interrupt a job that stands before a gate, in a step or a validation, and hasten its return."""
    gates.wait(gate, ranks=2)
    starts = int(slurm.state(number)["Restarts"])
    heard = hearings(log)
    if how == "requeue":
        slurm.control("scontrol", "requeue", number)
    else:
        slurm.control("scancel", f"--signal={how}", number)
    wait_for(lambda: hearings(log) > heard, 120, log.read_text)
    gates.open(gate)
    come_back(slurm, number, starts + 1)


def hearings(log):
    return log.read_text().count("stopping after this step")


def come_back(slurm, number, starts):
    """Wait until a job is in the queue again, and let it start at once instead of after two minutes."""

    def is_back():
        state = slurm.state(number)
        return state["Restarts"] == str(starts) and state["JobState"] == "PENDING"

    wait_for(is_back, 200, lambda: str(slurm.state(number)))
    time.sleep(2)  # in the second in which it was ended the nodes would take it for the one that they have to end
    slurm.control("scontrol", "update", f"JobId={number}", "StartTime=now")


@pytest.fixture(scope="module")
def whole(slurm, tmp_path_factory):
    """The run that nobody interrupts, on two nodes."""
    place = tmp_path_factory.mktemp("whole")
    words = [*WORDS, *TWO, "hydra/launcher=slurm", "sweep=whole"]
    environment = {**slurm.environment, **Gates(place).environment}
    assert command("train.py", "-m", *words, cwd=place, timeout=400, **environment).returncode == 0
    return place / "whole" / "0"


@pytest.mark.parametrize(
    "interruptions",
    [((STEP, "USR1"), (VALIDATION, "USR2")), ((SECOND_STEP, "USR2"), (SECOND_VALIDATION, "requeue"))],
    ids=["USR1-USR2", "USR2-requeue"],
)
def test_a_sweeps_job_on_two_nodes_comes_back_twice(slurm, gates, start, whole, tmp_path, interruptions):
    gates.close(*(gate for gate, _ in interruptions))
    process = start("-m", *WORDS, *TWO, "hydra/launcher=slurm", "sweep=mine", output=tmp_path / "out.txt")
    folder = tmp_path / "mine" / "0"
    for gate, how in interruptions:
        gates.wait(gate, ranks=2)
        number = (folder / "slurm-job.txt").read_text().strip()
        interrupt(slurm, gates, number, folder / "output.log", gate, how)
    assert process.wait(400) == 0 and "val/acc" in (tmp_path / "out.txt").read_text()
    expect_nothing_lost(folder / "output.log", *(gate for gate, _ in interruptions))
    expect_same(folder, whole)
    expect_equal_ranks(gates)


def sbatch(slurm, gates, place, *options):
    """Submit the script of the documentation; the job's number and log, and the run's folder."""
    (place / "train.py").symlink_to(ROOT / "train.py")
    path = f"{Path(sys.executable).parent}:{slurm.environment['PATH']}"  # the script says `python`
    further = {"PATH": path, "PYTHONPATH": f"{ROOT}:{gates.environment['PYTHONPATH']}"}
    done = subprocess.run(
        ["sbatch", "--parsable", "--ntasks-per-node=1", "--gpus-per-node=1", *options, ROOT / "docs" / "train.sbatch", *WORDS],
        cwd=place,
        env=variables(**slurm.environment | gates.environment | further),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    number = done.stdout.strip()
    return number, place / f"train-{number}.log", place / "outputs" / f"slurm-{number}"


def expect_completed(slurm, number, log):
    ended = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")
    wait_for(lambda: slurm.state(number)["JobState"] in ended, 400, log.read_text)
    state = slurm.state(number)
    assert (state["JobState"], state["ExitCode"]) == ("COMPLETED", "0:0"), log.read_text()


@pytest.mark.parametrize(
    "interruptions",
    [((SECOND_STEP, "USR1"), (SECOND_VALIDATION, "USR1")), ((VALIDATION, "requeue"), (SECOND_STEP, "USR2"))],
    ids=["USR1-USR1", "requeue-USR2"],
)
def test_a_plain_job_on_two_nodes_comes_back_twice(slurm, gates, whole, tmp_path, interruptions):
    gates.close(*(gate for gate, _ in interruptions))
    number, log, folder = sbatch(slurm, gates, tmp_path)
    for gate, how in interruptions:
        interrupt(slurm, gates, number, log, gate, how)
    expect_completed(slurm, number, log)
    assert len(os.listdir(tmp_path / "outputs")) == 1
    expect_nothing_lost(log, *(gate for gate, _ in interruptions))
    expect_same(folder, whole)
    expect_equal_ranks(gates)


def test_a_plain_job_at_its_time_limit_comes_back(slurm, gates, whole, tmp_path):
    gates.close(SECOND_STEP)
    number, log, folder = sbatch(slurm, gates, tmp_path, "--time=1", "--signal=USR1@15")
    # Slurm looks at limits every 30 seconds; a slow machine has not come to the gate by then
    wait_for(lambda: hearings(log) or slurm.state(number)["Restarts"] == "1", 300, log.read_text)
    gates.open(SECOND_STEP)
    wait_for(lambda: slurm.state(number)["JobState"] == "PENDING", 200, log.read_text)
    slurm.control("scontrol", "update", f"JobId={number}", "TimeLimit=60")
    come_back(slurm, number, 1)
    expect_completed(slurm, number, log)
    (step,) = stops(log.read_text())
    expect_nothing_lost(log, step)
    expect_same(folder, whole)
