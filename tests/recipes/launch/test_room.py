"""How many jobs the memory holds: seen of real processes."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from recipes.launch import room
from recipes.launch.memory import of_group
from recipes.launch.room import Room, available, of_its_own
from tests.command import command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it")
HOLDS = "import sys; held = bytes(range(256)) * (100 * 2**20 // 256); print('there', flush=True); sys.stdin.read()"
STARTS = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], start_new_session=True)"


@contextmanager
def started(*words):
    """A process that starts with these words, with a process group of its own, once 100 MiB are taken."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", *words], start_new_session=True, **pipes) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


@pytest.fixture
def large():
    """A process that has 100 MiB."""
    with started(HOLDS) as process:
        yield process


def test_what_a_process_takes(large):
    assert 100 * 2**20 < of_its_own(large.pid) < 130 * 2**20
    assert of_its_own(2**22 + 1) == 0.0  # there is none
    assert 0 < available() < float("inf")


def test_limits_of_a_control_group_and_of_those_above(tmp_path):
    groups, folder = tmp_path / "cgroup", tmp_path / "fs" / "job" / "step"
    folder.mkdir(parents=True)
    groups.write_text("0::/job/step\n")
    assert of_group(tmp_path / "fs", groups) == float("inf")
    for where, most, current in ((folder, "max", 5), (folder.parent, 1000, 700)):
        (where / "memory.max").write_text(f"{most}\n")
        (where / "memory.current").write_text(f"{current}\n")
        (where / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    assert of_group(tmp_path / "fs", groups) == 500
    assert of_group(tmp_path / "nothing", tmp_path / "nothing") == float("inf")
    assert room.available(tmp_path / "fs", groups) == 500  # also for the jobs of a sweep


def test_jobs_start_as_long_as_there_is_room(large, monkeypatch):
    found = Room(cores=2)
    assert found.holds([], 9) == (True, "") and found.holds([large.pid], 9) == (True, "")
    assert found.holds([large.pid, None], 9) == (False, "")  # nobody knows yet what a job takes
    found.known = True
    monkeypatch.setattr(room, "EVERY", 0)
    free = 10**9
    monkeypatch.setattr(room, "available", lambda: free)
    assert found.holds([large.pid, large.pid], 9) == (True, "")
    free = 10**8
    holds, line = found.holds([large.pid, large.pid], 9)
    assert not holds and line.startswith("2 jobs at a time in place of 9: a job takes 0.11 GB, and 0.1 GB of memory are free")
    assert found.holds([large.pid, large.pid], 9) == (False, "")  # said once
    free = 3 * 10**8
    assert found.holds([large.pid, large.pid], 9) == (True, "")
    assert found.holds([large.pid, None, None], 9)[0] is False  # others have not taken yet what they will


def test_what_the_ranks_of_a_job_take_is_seen(large):
    with started(STARTS, HOLDS) as job, started(STARTS, HOLDS):  # the second one is of somebody else
        found = Room(cores=1)
        found.holds([job.pid, large.pid], 9)
        assert all(100 * 2**20 < taken < 150 * 2**20 for taken in found._now)


@pytest.mark.slow
def test_a_sweep_of_many_jobs_at_a_time_ends(tmp_path):
    words = ("-m", "seed=0,1,2,3,4,5,6,7", "model=linear", "max_steps=2", "logger=[]", "hydra.launcher.n_jobs=99", "sweep=mine")
    done = command("train.py", *words, cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "mine").glob("*/result.json"))) == 8
