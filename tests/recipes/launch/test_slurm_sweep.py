"""What is checked before jobs are submitted to Slurm; tests/cluster submits to a real one."""

import pytest

from plugins.errors import RecipeError
from recipes.launch import slurm_queue
from recipes.launch import slurm_sweep as submit
from recipes.launch.display import Display
from recipes.launch.failures import LATE
from recipes.launch.job import Job
from recipes.launch.slurm_queue import LEFT, Queue, Submitted
from recipes.launch.slurm_sweep import has_gpus, request
from recipes.store.plan import Plan
from tests.command import mistake

SETTINGS = {"name": "train"}
SETTINGS |= dict.fromkeys(("nodes", "tasks_per_node", "gpus_per_node", "partition", "additional_parameters"))


def asked(accelerator="gpu", num_nodes=2, devices=4, **settings):
    return request(SETTINGS | settings, {"num_nodes": num_nodes, "devices": devices, "accelerator": accelerator})


def test_nodes_processes_and_gpus_follow_the_trainer(monkeypatch):
    assert asked() == {"nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4}
    assert asked("cpu") == {"nodes": 2, "tasks_per_node": 4}
    assert asked(devices=-1, gpus_per_node=8) == {"nodes": 2, "tasks_per_node": 8, "gpus_per_node": 8}
    assert asked(nodes=2, tasks_per_node=4, gpus_per_node=8)["gpus_per_node"] == 8
    for found in (True, False):
        monkeypatch.setattr(submit, "has_gpus", lambda partition, found=found: found)
        assert ("gpus_per_node" in asked("auto")) == found


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"nodes": 4}, "hydra.launcher.nodes=4 does not fit trainer.num_nodes=2: leave hydra.launcher.nodes out, or type "),
        ({"tasks_per_node": 8}, "or type trainer=ddp trainer.devices=8"),
        ({"gpus_per_node": 2}, "hydra.launcher.gpus_per_node=2 is less than trainer.devices=4"),
        ({"devices": -1}, "how many GPUs a node has is not known here; type trainer.devices=8"),
        ({"name": "bash"}, "type hydra.launcher.name=train"),
        ({"additional_parameters": "exclusive"}, "must name options of sbatch, such as {reservation: mine}, got 'exclusive'"),
        ({"name": "interactive"}, "hydra.launcher.name=interactive: Lightning takes"),
    ],
)
def test_what_does_not_fit_is_refused(settings, told):
    with pytest.raises(RecipeError) as caught:
        asked(**settings)
    assert told in str(caught.value)


def test_without_the_packages_or_slurm_the_error_says_what_to_do(tmp_path):
    words = ("-m", "hydra/launcher=slurm", "seed=0,1", "sweep=mine")
    assert "there is no sbatch here" in mistake(*words, cwd=tmp_path, forked=True, PATH=str(tmp_path))
    (tmp_path / "submitit.py").write_text("raise ModuleNotFoundError('submitit')")
    assert 'pip install -e ".[slurm]"' in mistake(*words, cwd=tmp_path, forked=True, PYTHONPATH=str(tmp_path))
    assert "type hydra/launcher=slurm" in mistake("-m", "hydra/launcher=submitit_slurm", "seed=0,1", cwd=tmp_path, forked=True)


def test_gpus_are_not_asked_for_where_nobody_answers(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert has_gpus(str(tmp_path)) is False


def test_a_job_in_the_queue_is_watched_until_it_has_ended(tmp_path, monkeypatch):
    """With a `squeue` that says what stands in a file."""
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/said\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(slurm_queue, "PAUSES", (0.0, 0.0))
    job = Job(0, tmp_path, [], "")
    queue = Queue()
    job_in_queue = Submitted(queue, "5", job)
    assert job_in_queue.poll() is None  # squeue has failed
    for state in ("PENDING", "RUNNING", "COMPLETING", "PENDING", "RUNNING"):
        (tmp_path / "said").write_text(f"4|FAILED\n5|{state}\n")
        assert job_in_queue.poll() is None
    (tmp_path / "said").write_text("5|COMPLETED\n")
    assert job_in_queue.poll() is None  # its result is not to be seen yet
    (tmp_path / "result.json").write_text('{"status": "pruned"}')
    assert Submitted(queue, "5", job).poll() == 0
    (tmp_path / "result.json").write_text('{"status": "finished"}')
    assert job_in_queue.poll() == 0
    (tmp_path / "result.json").unlink()
    (tmp_path / "said").write_text("5|TIMEOUT\n")
    other = Submitted(queue, "5", Job(0, tmp_path, [], ""))
    assert other.poll() == 1 and other.state == "TIMEOUT"
    forgotten = Submitted(queue, "6", Job(0, tmp_path, [], ""))
    assert forgotten.poll() is None
    forgotten.ended -= LATE
    assert forgotten.poll() == 1
    left = Submitted(queue, "5", job)
    left.send(15)
    assert left.poll() == LEFT
    (tmp_path / "scancel").write_text(f"#!/bin/sh\necho $1 > {tmp_path}/cancelled\n")
    (tmp_path / "scancel").chmod(0o755)
    Submitted(queue, "8", job).send(2)
    assert (tmp_path / "cancelled").read_text() == "8\n"
    (tmp_path / "scancel").unlink()
    Submitted(queue, "9", job).send(2)  # in a signal's handler, which goes on with the other jobs


def test_a_job_is_submitted_once_also_where_slurm_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(submit, "expect_slurm", lambda: None)
    settings = {"n_jobs": -1}
    sweep = submit.SlurmSweep(tmp_path / "mine", Plan(["seed=0,1"]), ["python", "train.py"], settings, print)
    sweep.display = Display(sweep.console, 1)
    job = Job(0, tmp_path / "mine" / "0", ["seed=0"], "")
    job.folder.mkdir()
    (job.folder / "slurm-job.txt").write_text("7\n")
    (job.folder / "output.log").write_text("trains")
    found = sweep._launch(job, [])
    assert found.number == "7" and found.poll() is None and (job.folder / "output.log").read_text() == "trains"


def test_a_job_whose_number_cannot_be_noted_is_taken_out_of_the_queue(tmp_path, monkeypatch):
    (tmp_path / "scancel").write_text(f"#!/bin/sh\necho $1 > {tmp_path}/cancelled\n")
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(submit, "expect_slurm", lambda: None)
    sweep = submit.SlurmSweep(tmp_path / "mine", Plan(["seed=0,1"]), ["python", "train.py"], {"n_jobs": -1}, print)
    job = Job(0, tmp_path / "mine" / "0", ["seed=0"], "")

    def submitted(job, words):
        (job.folder / "slurm-job.txt").mkdir()
        return "11"

    monkeypatch.setattr(sweep, "_submit", submitted)
    with pytest.raises(RecipeError, match="slurm-job.txt cannot be written"):
        sweep._launch(job, [])
    assert (tmp_path / "cancelled").read_text() == "11\n"
