"""Every run has its picture in its folder, drawn when all is printed, and never at the cost of the run."""

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from tests.command import arguments, command, variables

RUN = ("model=linear", "max_epochs=2", "logger=csv", "trainer.progress=false", "trainer.accelerator=cpu")


def told_at(place):
    """The line about the picture of the run in a folder a."""
    return f"picture  {place / 'a' / 'run.png'}"


def is_drawn(folder):
    with Image.open(folder / "run.png") as picture:
        return picture.width > 600


def test_a_run_a_resumed_one_and_one_that_is_explained(tmp_path):
    done = command("train.py", *RUN, "hydra.run.dir=a", cwd=tmp_path, forked=True)
    assert done.stdout.splitlines()[-1] == told_at(tmp_path) and is_drawn(tmp_path / "a")
    before = (tmp_path / "a/run.png").stat().st_mtime_ns
    again = command("train.py", "resume=a", cwd=tmp_path, forked=True)  # there is nothing to do
    assert again.returncode == 0 and (tmp_path / "a/run.png").stat().st_mtime_ns == before
    longer = command("train.py", "resume=a", "max_epochs=3", cwd=tmp_path, forked=True)
    assert longer.stdout.splitlines()[-1] == "picture  a/run.png" and (tmp_path / "a/run.png").stat().st_mtime_ns > before
    told = command("train.py", *RUN, "hydra.run.dir=b", "explain=true", cwd=tmp_path, forked=True)
    assert told.returncode == 0 and "picture" not in told.stdout and not (tmp_path / "b").exists()


def test_each_job_of_a_sweep_draws_its_own(tmp_path):
    done = command("train.py", "-m", *RUN, "seed=0,1", "sweep=s", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    for name in "01":
        assert is_drawn(tmp_path / "s" / name) and "run.png" in (tmp_path / "s" / name / "output.log").read_text()
    assert "run.png" not in done.stdout


@pytest.mark.slow
def test_one_of_two_processes_draws(tmp_path):
    words = (*RUN, "trainer=ddp", "trainer.devices=2", "trainer.oversubscribe=true", "hydra.run.dir=a")
    done = command("train.py", *words, cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(told_at(tmp_path)) == 1 and is_drawn(tmp_path / "a")


@pytest.mark.slow
def test_what_cannot_be_drawn_is_told_in_a_line_and_the_run_is_finished(tmp_path):
    code = "import sys; sys.modules['recipes.compare.run_picture'] = None; from recipes.cli.train import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *RUN, "hydra.run.dir=a"], cwd=tmp_path, env=variables(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("no picture of this run: import of recipes.compare.run_picture halted")
    assert "picture" not in done.stdout and "next" in done.stdout and not (tmp_path / "a/run.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "there"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)])
def test_a_run_that_was_stopped(tmp_path, number, code, there):
    words = ("model=linear", "max_epochs=100000", "logger=csv", "trainer.progress=false", "hydra.run.dir=a")
    run = subprocess.Popen(arguments("train.py", *words), cwd=tmp_path, env=variables(), stdout=subprocess.PIPE, text=True)
    while run.poll() is None and not (tmp_path / "a/metrics.csv").exists():
        time.sleep(0.1)
    time.sleep(0.5)
    os.kill(run.pid, number)
    printed, _ = run.communicate(timeout=120)
    assert run.returncode == code and (tmp_path / "a/run.png").exists() == there
    assert (told_at(tmp_path) in printed) == there
