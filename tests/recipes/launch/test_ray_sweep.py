"""Sweeps on a real Ray: one of the sweep's own, and one of two machines, each of which is a process here."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from plugins.errors import RecipeError
from recipes.launch.ray_sweep import request
from tests.command import SMALL, arguments, as_at_home, command, mistake, variables
from tests.packages import make_diagnostics
from tests.slowly import WORD, slowly

ENDLESS = ("model=linear", "max_steps=1000000", "logger=[]", "trainer.progress=false", "trainer.accelerator=cpu")
ON_RAY = ("hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2", "sweep=mine")
LIMIT = 600
CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"first": 1}, "include_dashboard": False})
second = cluster.add_node(num_cpus=1, resources={"second": 1})
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
print("removed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""
RANKS = """
import hashlib, os, pathlib
from plugins.base import Plugin, Stage
class Ranks(Plugin):
    stage, group, option = Stage.DIAGNOSTICS, "diagnostics", "ranks"
    def on_train_end(self, trainer, module):
        digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in module.state_dict().values())).hexdigest()
        pathlib.Path(__file__).with_name(f"rank-{trainer.global_rank}-{os.getpid()}").write_text(digest)
"""


@pytest.fixture
def ray():
    """What a Ray needs in its environment to keep its files and its token to itself."""
    if find_spec("ray") is None:
        pytest.skip('Ray is not installed: pip install -e ".[ray]"')
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short, for there are sockets in it
    yield {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ADDRESS": ""}
    shutil.rmtree(folder, ignore_errors=True)


def results(folder):
    """What the jobs of a sweep have left, by the name of their folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def wait_until(condition, process=None, seconds=LIMIT):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.1)


def started(folder):
    """The jobs that train, by the name of their folder."""
    return {config.parent.name for config in folder.glob("*/config.yaml")}  # written last


def parents():
    """The parent of each process of this machine."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def family(number):
    """A process and all that it has started, and they."""
    found, above = {number}, parents()
    while more := {each for each, parent in above.items() if parent in found} - found:
        found |= more
    return found


def start(*words, cwd, **environment):
    """A sweep as a terminal starts it, in a process group of its own."""
    return subprocess.Popen(
        arguments("train.py", "-m", *words),
        cwd=cwd,
        env=variables(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.waits
def test_a_sweep_on_ray_equals_one_in_processes(tmp_path, ray):
    words = ["-m", *SMALL, "preprocessing.per=wrong,channel,feature"]
    done = command("train.py", *words, *ON_RAY, cwd=tmp_path, timeout=LIMIT, **ray)
    assert done.returncode == 1  # a failed job ends no other
    summary, job, again = done.stderr.splitlines()  # and Ray says nothing
    assert summary == "error: 1 of 3 jobs failed:" and "per must be" in job and again.endswith("train.py -m sweep=mine")
    assert {name: result["status"] for name, result in results(tmp_path / "mine").items()} == {
        "0": "failed",
        "1": "finished",
        "2": "finished",
    }
    assert done.stdout.splitlines()[0].startswith("job ") and str(Path("mine") / "report.html") in done.stdout
    command("train.py", *words, "sweep=here", cwd=tmp_path, timeout=LIMIT, forked=True)
    for name in "12":
        assert results(tmp_path / "mine")[name]["metrics"] == results(tmp_path / "here")[name]["metrics"]


@pytest.mark.slow
@pytest.mark.waits
def test_a_job_on_two_devices_is_one_run(tmp_path, ray):
    package = tmp_path / "packages" / "ranks"
    make_diagnostics(package.parent, "ranks", RANKS)
    words = ["-m", "model=mlp", "max_steps=30", "trainer.accelerator=cpu", "trainer.progress=false", "seed=0,1"]
    ranks = [*words, *ON_RAY, "+diagnostics=ranks", "trainer=ddp", "trainer.devices=2"]
    two = command("train.py", *ranks, cwd=tmp_path, timeout=LIMIT, PYTHONPATH=str(package.parent), **ray)
    one = command("train.py", *words, "logger=csv", "sweep=one", cwd=tmp_path, timeout=LIMIT, forked=True)
    assert two.returncode == one.returncode == 0
    assert sorted(path.name for path in (tmp_path / "mine").iterdir() if path.is_dir()) == ["0", "1"]
    for name, expected in results(tmp_path / "one").items():
        found = results(tmp_path / "mine")[name]
        assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-4) and found["steps"] == 30
        assert len(list((tmp_path / "mine" / name / "wandb").glob("offline-run-*"))) == 1
    first, second = ({path.read_text() for path in package.glob(f"rank-{rank}-*")} for rank in (0, 1))
    assert first == second and len(first) == 2  # the parameters of two seeds


@pytest.mark.slow
@pytest.mark.waits
def test_ctrl_c_ends_jobs_that_have_gpus_of_their_own_and_one_that_waits(tmp_path, ray):
    """With two GPUs of which only Ray believes that they are there."""
    words = [*ENDLESS, 'name="${oc.env:CUDA_VISIBLE_DEVICES,none}"', "seed=0,1,2"]
    gpus = ["hydra.launcher.ray.init.num_gpus=2", "hydra.launcher.ray.remote.num_gpus=1"]
    process = start(
        *words, *gpus, "hydra/launcher=ray", "sweep=mine", "hydra.launcher.ray.init.num_cpus=4", cwd=tmp_path, **ray
    )
    folder = tmp_path / "mine"
    wait_until(lambda: len(started(folder)) == 2, process)
    names = {json.loads((folder / name / "result.json").read_text())["config"]["name"] for name in started(folder)}
    left = family(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=LIMIT)
    print(told)
    assert process.returncode == 130
    assert "stopped by SIGINT; 0 jobs are finished" in told and "python train.py -m sweep=mine" in as_at_home(told)
    assert names == {"0", "1"}
    assert [(result["status"], result["stopped_by"]) for result in results(folder).values()] == [("stopped", "SIGINT")] * 2
    wait_until(lambda: not left & set(parents()))


@pytest.mark.slow
@pytest.mark.waits
def test_a_killed_sweep_leaves_nothing_that_runs_and_goes_on(tmp_path, ray):
    words = ["model=mlp", "logger=[]", "trainer.accelerator=cpu", "seed=3"]
    sweep = [*words, "max_epochs=1,40", WORD, *ON_RAY, "hydra.launcher.n_jobs=1"]
    process = start(*sweep, cwd=tmp_path, **ray, **slowly(tmp_path, 1))
    folder = tmp_path / "mine"
    wait_until((folder / "1" / "checkpoints" / "last.ckpt").exists, process)
    left = family(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not left & set(parents()))
    assert {name: result["status"] for name, result in results(folder).items()} == {"0": "finished", "1": "stopped"}
    done = command("train.py", "sweep=mine", cwd=tmp_path, timeout=LIMIT, **ray, **slowly(tmp_path))
    assert done.returncode == 0 and "job 0  max_epochs=1  is finished: val/acc" in done.stdout
    output = (folder / "1" / "output.log").read_text()
    assert "stopped by SIGTERM" in output and "going on from step" in output
    whole = command("train.py", *words, "max_epochs=40", "hydra.run.dir=whole", cwd=tmp_path, timeout=LIMIT, forked=True)
    assert whole.returncode == 0
    assert results(folder)["1"]["metrics"] == results(tmp_path)["whole"]["metrics"]


@pytest.mark.slow
@pytest.mark.waits
def test_a_job_that_is_lost_with_its_machine_is_told(tmp_path, ray):
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables(**ray)
    )
    try:
        address = cluster.stdout.readline().strip()
        words = [*ENDLESS, "seed=0,1", "hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}", "sweep=mine"]
        process = start(*words, cwd=tmp_path, **ray)
        wait_until(lambda: started(tmp_path / "mine") == {"0", "1"}, process)
        cluster.stdin.write("\n")
        cluster.stdin.flush()
        assert cluster.stdout.readline() == "removed\n"
        assert any("Ray has ended the job" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=LIMIT)
        assert process.returncode == 130
        wait_until(lambda: {each.get("stopped_by") for each in results(tmp_path / "mine").values()} == {"SIGINT", "SIGTERM"})
    finally:
        with suppress(OSError):
            cluster.communicate("\n\n", timeout=LIMIT)
        cluster.kill()


SETTINGS = {"ray": {"init": {"address": None}, "remote": {"num_cpus": None, "num_gpus": None, "resources": None}}}


@pytest.mark.parametrize(
    ("remote", "trainer", "told"),
    [
        ({}, {"num_nodes": 2}, "trains each job on one machine, and trainer.num_nodes=2"),
        ({}, {"devices": -1}, "trainer.devices=-1: how many GPUs a machine of the cluster has is not known here"),
        ({"resources": 3}, {}, "resources: expected numbers by name, such as {disk: 1}, got 3"),
        ({"resources": {"disk": "a"}}, {}, "resources: expected numbers by name"),
    ],
)
def test_what_ray_cannot_do_is_refused_before_it_starts(remote, trainer, told):
    settings = {"ray": {**SETTINGS["ray"], "remote": remote}}
    with pytest.raises(RecipeError) as caught:
        request(settings, {"num_nodes": 1, "devices": 1, "accelerator": "cpu"} | trainer)
    assert told in str(caught.value)


def test_without_the_package_or_a_cluster_the_error_says_what_to_do(tmp_path):
    words = ("-m", "hydra/launcher=ray", "seed=0,1", "sweep=mine")
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('ray')")
    assert 'pip install -e ".[ray]"' in mistake(*words, cwd=tmp_path, forked=True, PYTHONPATH=str(tmp_path))
    (tmp_path / "ray.py").unlink()
    if find_spec("ray") is not None:
        told = mistake(*words, "hydra.launcher.ray.init.address=localhost:1", cwd=tmp_path)
        assert "Ray, localhost:1: " in told and "refused" in told and "`ray start --head` starts a cluster" in told


def test_a_package_with_a_launcher_of_the_same_name_changes_nothing(tmp_path):
    package = tmp_path / "hydra_plugins" / "hydra_ray_launcher"
    package.mkdir(parents=True)
    store = 'ConfigStore.instance().store(group="hydra/launcher", name="ray", node={"_target_": "theirs"})'
    (package / "__init__.py").touch()
    (package / "_config.py").write_text(f"from hydra.core.config_store import ConfigStore\n{store}\n")
    (package / "ray_launcher.py").write_text("from . import _config\nprint('loaded')\n")
    words = ("hydra/launcher=ray", "--cfg", "hydra", "--package", "hydra.launcher")
    done = command("train.py", *words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "loaded" in done.stdout and "_target_: hydra_plugins.lightning_recipes.RayLauncher" in done.stdout
