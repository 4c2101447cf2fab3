"""What a run does differently as a job of Slurm; tests/cluster tries it on a real one."""

import json
import os
import signal

import pytest

from plugins.errors import RecipeError
from recipes.engine.stop import StopOnSignal
from recipes.launch import ranks
from recipes.launch import slurm_job as slurm
from recipes.launch.identity import here
from tests.command import SMALL, command, mistake

ALONE = {"num_nodes": 1, "devices": 1}


@pytest.fixture(autouse=True)
def _outside(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    here.cache_clear()
    yield
    here.cache_clear()


def set_job(monkeypatch, tasks=1, nodes=1, rank=0, name="train", step=True):
    values = {"JOB_ID": 7, "NTASKS": tasks, "NNODES": nodes, "PROCID": rank, "JOB_NAME": name, "LOCALID": 0, "NODEID": 0}
    for key, value in values.items() | ({("STEP_ID", 0)} if step else set()):
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    here.cache_clear()


@pytest.mark.parametrize(
    ("tasks", "nodes", "trainer", "told"),
    [
        (4, 2, ALONE, "type trainer=ddp trainer.num_nodes=2 trainer.devices=2, or ask Slurm for --nodes=1 --ntasks-per-node=1"),
        (1, 1, {"num_nodes": 2, "devices": 2}, "trainer.devices=2 wants 4 on 2: type trainer=ddp trainer.num_nodes=1"),
        (1, 2, ALONE, "type trainer=ddp trainer.num_nodes=2 trainer.devices=1"),
        (2, 2, {"num_nodes": 1, "devices": -1}, "wants another number on 1"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(monkeypatch, tasks, nodes, trainer, told):
    set_job(monkeypatch, tasks, nodes)
    with pytest.raises(RecipeError, match="Slurm has started") as caught:
        ranks.check_started(trainer)
    assert told in str(caught.value)


def test_ranks_that_fit_are_taken(monkeypatch):
    ranks.check_started({"num_nodes": 1, "devices": 4})
    set_job(monkeypatch, 4, 2)
    ranks.check_started({"num_nodes": 2, "devices": 2})
    ranks.check_started({"num_nodes": 2, "devices": -1})
    for name in ("interactive", "train"):  # one process on one node: train.py starts the others
        set_job(monkeypatch, name=name)
        ranks.check_started({"num_nodes": 1, "devices": 4})
        ranks.check_started({"num_nodes": 1, "devices": -1})
    set_job(monkeypatch, 2, 2, name="bash")
    ranks.check_started({"num_nodes": 2, "devices": 1})


def test_a_job_without_srun_and_nodes_without_slurm_are_refused(monkeypatch):
    with pytest.raises(RecipeError, match="trainer.num_nodes=2: nothing has started processes on 2 machines"):
        ranks.check_started({"num_nodes": 2, "devices": 1})
    set_job(monkeypatch, 2, 1, step=False)
    with pytest.raises(RecipeError, match="put srun in front of python"):
        ranks.check_started({"num_nodes": 1, "devices": 2})


def test_the_commands_refuse_them(tmp_path):
    told = mistake(*SMALL, "trainer.num_nodes=2", cwd=tmp_path, forked=True)
    assert "python train.py -m hydra/launcher=slurm trainer=ddp trainer.num_nodes=2" in told
    inside = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "x"}
    assert "put srun in front of python" in mistake(*SMALL, cwd=tmp_path, forked=True, **inside)


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
    here.cache_clear()
    assert not slurm.comes_back("SIGUSR2")


def test_a_queue_that_does_not_answer_is_told_in_a_line(monkeypatch, tmp_path):
    set_job(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))  # no scontrol
    with pytest.raises(RecipeError, match="the job could not be put back into the queue: .*scontrol"):
        slurm.come_back("SIGUSR2")


@pytest.mark.slow
def test_a_job_that_slurm_starts_again_goes_on(tmp_path):
    words = ["model=linear", "max_epochs=3", "logger=csv", "trainer.progress=false", "trainer.accelerator=cpu"]
    inside = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "x"}
    assert command("train.py", *words, "hydra.run.dir=mine", cwd=tmp_path, forked=True, **inside).returncode == 0
    before = (tmp_path / "mine" / "result.json").read_bytes()
    done = command("train.py", *words, "hydra.run.dir=mine", cwd=tmp_path, forked=True, **inside, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0 and "the run is finished" in done.stdout
    assert (tmp_path / "mine" / "result.json").read_bytes() == before
    assert json.loads(before)["slurm_job"] == "7"
    replacing = [*words, "overwrite=true", "hydra.run.dir=mine"]
    done = command("train.py", *replacing, cwd=tmp_path, forked=True, **inside, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0 and (tmp_path / "mine" / "result.json").read_bytes() == before
    done = command("train.py", *replacing, cwd=tmp_path, forked=True, **inside | {"SLURM_JOB_ID": "8"}, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0 and json.loads((tmp_path / "mine" / "result.json").read_text())["slurm_job"] == "8"
    other = command("train.py", *words, "hydra.run.dir=other", cwd=tmp_path, forked=True, **inside, SLURM_RESTART_COUNT="1")
    assert other.returncode == 0 and json.loads((tmp_path / "other" / "result.json").read_text())["status"] == "finished"
