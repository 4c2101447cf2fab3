"""What a run does differently as a job of Slurm; tests/cluster tries it on a real one."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from recipes import slurm
from recipes.catalogue import UsageError
from recipes.checkpoint import StopOnSignal
from tests.command import ROOT, SMALL, command, mistake, variables

ALONE = {"num_nodes": 1, "devices": 1}


@pytest.fixture(autouse=True)
def _outside(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)


def set_job(monkeypatch, tasks=1, nodes=1, rank=0, name="train", step=True):
    values = {"JOB_ID": 7, "NTASKS": tasks, "NNODES": nodes, "PROCID": rank, "JOB_NAME": name}
    for key, value in values.items() | ({("STEP_ID", 0)} if step else set()):
        monkeypatch.setenv(f"SLURM_{key}", str(value))


@pytest.mark.parametrize(
    ("tasks", "nodes", "trainer", "told"),
    [
        (4, 2, ALONE, "type trainer=ddp trainer.num_nodes=2 trainer.devices=2, or ask Slurm for --nodes=1 --ntasks-per-node=1"),
        (1, 1, {"num_nodes": 1, "devices": 2}, "trainer.devices=2 wants 2 on 1: type trainer=ddp trainer.num_nodes=1"),
        (2, 2, {"num_nodes": 1, "devices": -1}, "wants another number on 1"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(monkeypatch, tasks, nodes, trainer, told):
    set_job(monkeypatch, tasks, nodes)
    with pytest.raises(UsageError, match="Slurm has started") as caught:
        slurm.check_ranks(trainer)
    assert told in str(caught.value)


def test_ranks_that_fit_are_taken(monkeypatch):
    slurm.check_ranks({"num_nodes": 1, "devices": 4})
    set_job(monkeypatch, 4, 2)
    slurm.check_ranks({"num_nodes": 2, "devices": 2})
    slurm.check_ranks({"num_nodes": 2, "devices": -1})
    set_job(monkeypatch, name="interactive")  # a person's shell: Lightning starts the processes
    slurm.check_ranks({"num_nodes": 1, "devices": 4})
    set_job(monkeypatch, 2, 2, name="bash")
    slurm.check_ranks({"num_nodes": 2, "devices": 1})
    assert os.environ["SLURM_JOB_NAME"] == "train"


def test_a_job_without_srun_and_nodes_without_slurm_are_refused(monkeypatch):
    with pytest.raises(UsageError, match="trainer.num_nodes=2: nothing has started processes on 2 machines"):
        slurm.check_ranks({"num_nodes": 2, "devices": 1})
    set_job(monkeypatch, 2, 1, step=False)
    with pytest.raises(UsageError, match="put srun in front of python"):
        slurm.check_ranks({"num_nodes": 1, "devices": 2})


def test_the_commands_refuse_them(tmp_path):
    told = mistake(*SMALL, "trainer.num_nodes=2", cwd=tmp_path)
    assert "python train.py -m hydra/launcher=slurm trainer=ddp trainer.num_nodes=2" in told
    inside = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "x"}
    assert "put srun in front of python" in mistake(*SMALL, cwd=tmp_path, **inside)


def test_a_signal_that_came_early_and_the_one_that_has_most_to_say(monkeypatch):
    set_job(monkeypatch)
    monkeypatch.setattr(slurm, "received", [])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    try:
        slurm.listen()
        os.kill(os.getpid(), signal.SIGUSR1)
        with StopOnSignal() as stop:
            assert stop.requested == "SIGUSR1"
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested == "SIGUSR1"
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.requested == "SIGUSR2"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert slurm.comes_back("SIGUSR2") and not slurm.comes_back("SIGTERM")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert not slurm.comes_back("SIGUSR2")


def fail(folder, rank, error, wait=0.02):
    """A rank that fails, in a process of its own, since it ends it; its exit code."""
    code = f"from recipes import slurm, catalogue; import pathlib; slurm.fail(pathlib.Path({str(folder)!r}), {error}, 3, False)"
    inside = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "3", "SLURM_PROCID": str(rank)}
    words = variables(**inside, SLURMD_NODENAME=f"n{rank}", PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], env=words, capture_output=True, timeout=60)
    time.sleep(wait)
    return done.returncode


def test_the_first_real_error_is_found(tmp_path):
    lost = "RuntimeError('gloo: Connection closed by peer [10.0.0.1]')"
    ranks = random.sample(range(3), 3)
    assert fail(tmp_path, ranks[0], lost) == 3
    assert slurm.first_error(tmp_path, "") == f"rank {ranks[0]} on n{ranks[0]}: gloo: Connection closed by peer [10.0.0.1]"
    killed = "0: fine\nsrun: error: node2: task 1: Killed\nsrun: error: node1: task 0: Exited with exit code 1\n"
    assert slurm.first_error(tmp_path, killed) == "rank 1 on node2: killed (is there enough memory?)"
    assert fail(tmp_path, ranks[1], "ValueError('wrong\\nnumber')") == 3
    assert fail(tmp_path, ranks[2], "ValueError('later')") == 3
    assert slurm.first_error(tmp_path, killed) == f"rank {ranks[1]} on n{ranks[1]}: wrong number"
    slurm.forget_errors(tmp_path)
    assert slurm.first_error(tmp_path, "") == ""


@pytest.mark.parametrize("failed", [True, False])
def test_a_rank_that_is_asked_to_end_does_so_at_once_if_another_has_failed(tmp_path, failed):
    code = (
        f"import pathlib, time; from recipes import slurm; slurm.listen(); slurm.end_with_others(pathlib.Path({str(tmp_path)!r}))\n"
        "print('ready', flush=True)\nwhile not slurm.received: time.sleep(0.1)\nprint('heard', flush=True)\ntime.sleep(1000)"
    )
    inside = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "3", "PYTHONPATH": str(ROOT)}
    if not failed:  # but at an earlier start
        inside["SLURM_RESTART_COUNT"] = "1"
    assert fail(tmp_path, 1, "ValueError('wrong')") == 3
    process = subprocess.Popen([sys.executable, "-c", code], env=variables(**inside), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        if failed:
            assert process.wait(60) == 1
        else:
            assert process.stdout.readline() == "heard\n" and process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_job_that_slurm_starts_again_goes_on(tmp_path):
    words = ["model=linear", "max_epochs=3", "logger=csv", "trainer.progress=false", "trainer.accelerator=cpu"]
    inside = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "x"}
    assert command("train.py", *words, "hydra.run.dir=mine", cwd=tmp_path, **inside).returncode == 0
    before = (tmp_path / "mine" / "result.json").read_bytes()
    done = command("train.py", *words, "hydra.run.dir=mine", cwd=tmp_path, **inside, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0 and "the run is finished" in done.stdout
    assert (tmp_path / "mine" / "result.json").read_bytes() == before
    other = command("train.py", *words, "hydra.run.dir=other", cwd=tmp_path, **inside, SLURM_RESTART_COUNT="1")
    assert other.returncode == 0 and json.loads((tmp_path / "other" / "result.json").read_text())["status"] == "finished"
