"""Sweeps whose jobs a real Slurm runs."""

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.slurm import wait_for
from tests.command import as_at_home, command, mistake

SHORT = ("model=mlp", "max_steps=30", "trainer.accelerator=cpu", "trainer.progress=false", "+diagnostics=[gates]")
ENDLESS = ("model=mlp", "max_steps=1000000", "trainer.accelerator=cpu", "trainer.progress=false", "logger=csv")
TWO_NODES = ("trainer=ddp", "trainer.num_nodes=2", "trainer.devices=1")
TWO_PROCESSES = ("trainer=ddp", "trainer.devices=2")
SLURM = ("hydra/launcher=slurm", "sweep=mine")


def results(folder):
    """What the jobs of a sweep have left, by the name of their folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def numbers(folder):
    """The jobs' numbers in the queue."""
    return {path.parent.name: path.read_text().strip() for path in folder.glob("*/slurm-job.txt")}


def all_jobs(slurm):
    """The numbers of all jobs that were ever submitted and are not forgotten."""
    return set(slurm.control("squeue", "-h", "--states=all", "-o", "%i").split())


def processes(folder):
    """The ranks that train in a job's folder, on all nodes, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = dict(pair.split("=", 1) for pair in (path / "environ").read_text().split("\0") if "=" in pair)
            words = (path / "cmdline").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        number = (folder / "slurm-job.txt").read_text().strip()
        if "submitit.core._submit" in words and "srun" not in words and environment.get("SLURM_JOB_ID") == number:
            found[int(environment["SLURM_PROCID"])] = int(path.name)
    return found


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """The metrics of the same jobs in one process each, without Slurm."""
    place = tmp_path_factory.mktemp("one")
    words = [word for word in SHORT if "gates" not in word]
    words = ["-m", *words, "seed=0,1", "logger=csv", "sweep=one"]
    assert command("train.py", *words, cwd=place, timeout=300, forked=True).returncode == 0
    return {name: result["metrics"] for name, result in results(place / "one").items()}


def expect_equal(folder, metrics):
    """All jobs are finished, with the metrics of one process each."""
    found = results(folder)
    assert sorted(found) == sorted(metrics)
    for name, result in found.items():
        assert result["status"] == "finished" and result["steps"] == 30
        assert result["metrics"] == pytest.approx(metrics[name], rel=1e-4)
        assert len({path.name.rpartition("-")[2] for path in (folder / name / "wandb").glob("offline-run-*")}) == 1


@pytest.mark.parametrize(
    ("words", "nodes", "tasks"),
    [((), "1", "1"), (TWO_PROCESSES, "1", "2"), (TWO_NODES, "2", "2")],
    ids=["one-process", "two-processes", "two-nodes"],
)
def test_jobs_are_one_run_each_and_equal_one_process(slurm, gates, metrics, tmp_path, words, nodes, tasks):
    environment = {**slurm.environment, **gates.environment}
    done = command("train.py", "-m", *SHORT, "seed=0,1", *SLURM, *words, cwd=tmp_path, timeout=500, **environment)
    assert done.returncode == 0
    folder = tmp_path / "mine"
    expect_equal(folder, metrics)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != ".submitit") == ["0", "1"]
    for name, number in numbers(folder).items():
        state = slurm.state(number)
        assert (state["JobState"], state["NumNodes"], state["NumTasks"]) == ("COMPLETED", nodes, tasks)
        log = (folder / name / "output.log").read_text()
        assert tasks == "1" or ("0: " in log and "1: " in log)
    weights = gates.weights()
    assert sorted(weights) == ["0", "1"]
    assert all(len(ranks) == int(tasks) and len(set(ranks)) == 1 for ranks in weights.values())
    for name in ("compare.csv", "report.html", "jobs.yaml"):
        assert (folder / name).stat().st_size
    assert "wandb    group mine" in done.stdout
    before = {path: path.read_bytes() for path in folder.glob("*/result.json")}
    submitted = all_jobs(slurm)
    again = command("train.py", "sweep=mine", cwd=tmp_path, **environment)
    assert again.returncode == 0 and again.stdout.count("is finished: val/acc") == 2
    assert {path: path.read_bytes() for path in before} == before and all_jobs(slurm) == submitted


def test_a_search_by_optuna_goes_on(slurm, tmp_path):
    pytest.importorskip("optuna")
    words = [*SHORT[:-1], "logger=csv", "optimizer.lr=interval(0.001,1)", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2"]
    done = command("train.py", "-m", *words, *SLURM, cwd=tmp_path, timeout=300, **slurm.environment)
    assert done.returncode == 0
    first = results(tmp_path / "mine")
    assert sorted(first) == ["0", "1"]
    done = command("train.py", "sweep=mine", "hydra.sweeper.n_trials=3", cwd=tmp_path, timeout=300, **slurm.environment)
    assert done.returncode == 0 and done.stdout.count("is finished: val/acc") == 2
    after = results(tmp_path / "mine")
    assert sorted(after) == ["0", "1", "2"] and all(after[name] == first[name] for name in first)
    assert len({result["config"]["optimizer"]["lr"] for result in after.values()}) == 3
    assert f"(val/acc {max(result['metrics']['val/acc'] for result in after.values()):.4f} in the search)" in done.stdout


def test_ctrl_c_takes_the_jobs_out_of_the_queue_saved(slurm, gates, start, metrics, tmp_path):
    out, folder = tmp_path / "out.txt", tmp_path / "mine"
    gates.close("step-20")
    one_a_node = "hydra.launcher.additional_parameters={exclusive: true}"  # so that the third one waits
    process = start("-m", *SHORT, "seed=0,1,2", *SLURM, one_a_node, output=out)
    gates.wait("step-20", ranks=2)
    wait_for(lambda: len(numbers(folder)) == 3, 60, out.read_text)
    assert slurm.state(numbers(folder)["2"])["JobState"] == "PENDING"
    process.send_signal(signal.SIGINT)
    wait_for(lambda: all("stopping after" in (folder / name / "output.log").read_text() for name in "01"), 120, out.read_text)
    gates.open("step-20")
    assert process.wait(200) == 130
    assert "stopped by SIGINT; 0 jobs are finished" in out.read_text()
    wait_for(lambda: not slurm.control("squeue", "-h"), 60)
    assert {name: (result["status"], result["steps"]) for name, result in results(folder).items()} == {
        "0": ("stopped", 20),
        "1": ("stopped", 20),
    }
    environment = {**slurm.environment, **gates.environment}
    words = ("-m", *SHORT, "seed=0,1", "sweep=mine", one_a_node)
    assert command("train.py", *words, cwd=tmp_path, timeout=300, **environment).returncode == 0
    assert all("going on from step 20" in (folder / name / "output.log").read_text() for name in "01")
    expect_equal(folder, metrics)


def test_jobs_go_on_without_the_command_which_can_wait_for_them_again(slurm, gates, start, metrics, tmp_path):
    folder, outputs = tmp_path / "mine", [tmp_path / f"{number}.txt" for number in range(3)]
    gates.close("step-20")
    process = start("-m", *SHORT, "seed=0,1", *SLURM, output=outputs[0])
    gates.wait("step-20", ranks=2)
    submitted, jobs = numbers(folder), all_jobs(slurm)
    process.send_signal(signal.SIGHUP)
    assert process.wait(120) == 128 + signal.SIGHUP
    told = as_at_home(outputs[0].read_text())
    assert "the jobs go on in Slurm; to wait for them: python train.py -m sweep=mine" in told
    for output in outputs[1:]:
        process = start("-m", "sweep=mine", output=output)
        wait_for(lambda output=output: output.read_text().count(" already\n") == 2, 120)
        assert all(f"is Slurm job {number} already" in output.read_text() for number in submitted.values())
        if output == outputs[1]:
            process.kill()
            process.wait()
    gates.open("step-20")
    assert process.wait(300) == 0 and "val/acc" in outputs[2].read_text()
    assert numbers(folder) == submitted and all_jobs(slurm) == jobs
    assert all(slurm.state(number)["Restarts"] == "0" for number in submitted.values())
    expect_equal(folder, metrics)


def test_a_killed_rank_ends_its_job(slurm, start, tmp_path):
    process = start("-m", *ENDLESS, *SLURM, *TWO_NODES, "seed=0", output=tmp_path / "out.txt")
    folder = tmp_path / "mine" / "0"
    wait_for(lambda: len((folder / "metrics.csv").read_text().splitlines()) > 3, 300)
    ranks = processes(folder)
    assert sorted(ranks) == [0, 1]
    os.kill(ranks[1], signal.SIGKILL)
    began = time.monotonic()
    assert process.wait(60) == 1
    print(time.monotonic() - began)
    told = (tmp_path / "out.txt").read_text()
    print(told)
    number = (folder / "slurm-job.txt").read_text().strip()
    assert slurm.state(number)["JobState"] == "FAILED" and slurm.state(number)["ExitCode"] != "0:0"
    assert "error: 1 of 1 jobs failed:" in told and "rank 1 on node2: killed" in told and "mine/0/output.log" in told
    assert results(tmp_path / "mine")["0"]["status"] == "failed"


def test_a_mistake_on_one_node_ends_its_job_and_is_told(slurm, tmp_path):
    """Rank 0 finds its data and waits for rank 1, which does not."""
    images = random.Random(0).randbytes(60 * 16)
    np.savez(tmp_path / "0.npz", x=np.frombuffer(images, np.uint8).reshape(60, 4, 4), y=np.arange(60) % 3)
    words = [*SHORT[:-1], *SLURM, *TWO_NODES, "data=npz", 'data.path="${oc.env:SLURM_PROCID,0}.npz"', "seed=0,1", "logger=csv"]
    done = command("train.py", "-m", *words, cwd=tmp_path, timeout=300, **slurm.environment)
    assert done.returncode == 1
    assert "error: 2 of 2 jobs failed:" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("  job ")]
    assert len(lines) == 2 and all("1.npz" in line and "output.log" in line for line in lines)
    logs = [path.read_text() for path in (tmp_path / "mine").glob("*/output.log")]
    assert len(logs) == 2 and not any("Killed" in log for log in logs)  # rank 0 has ended itself


def test_settings_that_do_not_fit_submit_nothing(slurm, tmp_path):
    jobs = all_jobs(slurm)
    for word, told in (
        ("hydra.launcher.nodes=3", "hydra.launcher.nodes=3 does not fit trainer.num_nodes=2"),
        ("hydra.launcher.name=bash", "hydra.launcher.name=bash"),
        ("hydra.launcher.timeout_min=abc", "timeout_min"),
    ):
        words = ["-m", *SHORT[:-1], *SLURM, *TWO_NODES, "seed=0,1", word]
        assert told in mistake(*words, cwd=tmp_path, **slurm.environment)
    words = ["-m", *SHORT[:-1], *SLURM, *TWO_NODES, "seed=0,1", "hydra.launcher.partition=none"]
    done = command("train.py", *words, cwd=tmp_path, **slurm.environment)
    assert done.returncode == 2 and "error: Slurm does not take the job: invalid partition" in done.stderr
    assert all_jobs(slurm) == jobs
