"""Sweeps whose jobs train on two nodes of a real Slurm."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.slurm import wait_for
from tests.command import arguments, command, mistake, variables

TWO_NODES = ("hydra/launcher=slurm", "trainer=ddp", "trainer.num_nodes=2", "trainer.devices=1", "sweep=two")
SHORT = ("model=mlp", "max_steps=30", "trainer.accelerator=cpu", "trainer.progress=false")
ENDLESS = ("model=mlp", "max_steps=1000000", "trainer.accelerator=cpu", "trainer.progress=false", "logger=csv")


def results(folder):
    """What the jobs of a sweep have left, by the name of their folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


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


def test_two_jobs_on_two_nodes_equal_one_process(slurm, tmp_path):
    words = ["-m", *SHORT, "seed=0,1"]
    two = command("train.py", *words, *TWO_NODES, cwd=tmp_path, timeout=200, **slurm.environment)
    assert two.returncode == 0
    one = command("train.py", *words, "logger=csv", "sweep=one", cwd=tmp_path)
    assert one.returncode == 0
    expected, found = results(tmp_path / "one"), results(tmp_path / "two")
    assert sorted(found) == sorted(expected) == ["0", "1"]
    for name, result in found.items():
        assert result["status"] == "finished" and result["steps"] == 30
        assert result["metrics"] == pytest.approx(expected[name]["metrics"], rel=1e-4)
        assert len(list((tmp_path / "two" / name / "wandb").glob("offline-run-*"))) == 1
        log = (tmp_path / "two" / name / "output.log").read_text()
        assert "0: " in log and "1: " in log
        number = (tmp_path / "two" / name / "slurm-job.txt").read_text().strip()
        state = slurm.state(number)
        assert state["JobState"] == "COMPLETED" and state["NumNodes"] == "2" and state["NumTasks"] == "2"
    for name in ("compare.csv", "report.html", "jobs.yaml"):
        assert (tmp_path / "two" / name).stat().st_size
    before = {path: path.read_bytes() for path in (tmp_path / "two").glob("*/result.json")}
    again = command("train.py", "sweep=two", cwd=tmp_path, **slurm.environment)
    assert again.returncode == 0 and again.stdout.count("is finished: val/acc") == 2
    assert {path: path.read_bytes() for path in before} == before


def test_a_killed_rank_ends_its_job(slurm, tmp_path):
    words = ["-m", *ENDLESS, *TWO_NODES, "seed=0"]
    with open(tmp_path / "out.txt", "w") as out:
        process = subprocess.Popen(
            arguments("train.py", *words), cwd=tmp_path, env=variables(**slurm.environment), stdout=out, stderr=out
        )
    folder = tmp_path / "two" / "0"
    wait_for(lambda: len((folder / "metrics.csv").read_text().splitlines()) > 3, 90)
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
    assert "error: 1 of 1 jobs failed:" in told and "rank 1 on node2: killed" in told and "two/0/output.log" in told
    assert results(tmp_path / "two")["0"]["status"] == "failed"


def test_a_mistake_on_one_node_ends_its_job_and_is_told(slurm, tmp_path):
    """Rank 0 finds its data and waits for rank 1, which does not."""
    images = random.Random(0).randbytes(60 * 16)
    np.savez(tmp_path / "0.npz", x=np.frombuffer(images, np.uint8).reshape(60, 4, 4), y=np.arange(60) % 3)
    words = [*SHORT, *TWO_NODES, "data=npz", 'data.path="${oc.env:SLURM_PROCID,0}.npz"', "seed=0,1", "logger=csv"]
    done = command("train.py", "-m", *words, cwd=tmp_path, timeout=120, **slurm.environment)
    assert done.returncode == 1
    assert "error: 2 of 2 jobs failed:" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("  job ")]
    assert len(lines) == 2 and all("1.npz" in line and "output.log" in line for line in lines)


def test_settings_that_do_not_fit_submit_nothing(slurm, tmp_path):
    for word, told in (
        ("hydra.launcher.nodes=3", "hydra.launcher.nodes=3 does not fit trainer.num_nodes=2"),
        ("hydra.launcher.name=bash", "hydra.launcher.name=bash"),
        ("hydra.launcher.timeout_min=abc", "timeout_min"),
    ):
        assert told in mistake("-m", *SHORT, *TWO_NODES, "seed=0,1", word, cwd=tmp_path, **slurm.environment)
    words = ["-m", *SHORT, *TWO_NODES, "seed=0,1", "hydra.launcher.partition=none"]
    done = command("train.py", *words, cwd=tmp_path, **slurm.environment)
    assert done.returncode == 2 and "error: Slurm does not take the job: invalid partition" in done.stderr
    assert not slurm.control("squeue", "-h")
