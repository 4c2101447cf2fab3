"""A fork of a warm process is what a process of its own is: in what it sees, in how it ends, in what it trains."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from recipes.launch import parent
from recipes.launch.forked import Warm
from tests.command import ROOT, arguments, command, torchrun, variables

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
SCRIPT = """
from recipes.launch import parent, warm

warm.load = lambda: None  # what importing takes is not what is looked at
parent.find()
if warm.is_wanted():
    words = warm.serve()
    warm.go_on(lambda: exec(words[0], {}))
"""
LOOK = """
import atexit, json, os, sys, threading
atexit.register(lambda: print("at the end"))
descriptors = {int(name): os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}
print(json.dumps({"words": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ), "own group": os.getpgid(0) == os.getpid(),
    "threads": len(os.listdir("/proc/self/task")), "descriptors": descriptors}))
print("this goes to errors", file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture
def process(tmp_path, monkeypatch):
    """A warm process of a script that does what it is given as its first word."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    made = Warm([sys.executable, str(tmp_path / "script.py")], variables(PYTHONPATH=str(ROOT)))
    yield made
    made.close()


@pytest.fixture
def lifeline():
    """The end of a pipe that a job hears, as long as the test lasts."""
    ends = os.pipe()
    yield ends[0]
    for end in ends:
        os.close(end)


def ended(job, limit=30):
    """The exit code of a job."""
    until = time.monotonic() + limit
    while job.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return job.returncode


def test_a_fork_sees_what_a_process_of_its_own_sees(process, lifeline, tmp_path):
    (tmp_path / "job").mkdir()
    job = process.start([LOOK, "a=1", "b"], tmp_path / "job", lifeline, {"MINE": "ä", "PATH": "/bin"})
    assert ended(job) == 3
    lines = (tmp_path / "job" / "output.log").read_text().splitlines()
    (found,) = (json.loads(line) for line in lines if line.startswith("{"))
    assert sorted(lines)[:2] == ["at the end", "this goes to errors"] and len(lines) == 3
    assert found["words"] == [LOOK, "a=1", "b"] and found["folder"] == str(tmp_path)
    assert found["own group"] and found["threads"] == 1
    own = found["environment"].pop("LIGHTNING_RECIPES_LIFELINE")
    assert found["environment"] == {"MINE": "ä", "PATH": "/bin"}
    open_there = {name: place for name, place in found["descriptors"].items() if "/proc/" not in place}
    assert set(open_there) == {"0", "1", "2", own} and "pipe:" in open_there[own]
    assert open_there["0"] == os.devnull and open_there["1"] == open_there["2"] == str(tmp_path / "job" / "output.log")


def test_ends_are_heard(process, lifeline, tmp_path):
    codes = {"pass": 0, "raise SystemExit(7)": 7, "raise OverflowError('much')": 1, "import os; os._exit(9)": 9}
    jobs = {code: process.start([text], tmp_path, lifeline, {}) for text, code in codes.items()}
    assert all(ended(job) == code for code, job in jobs.items())
    assert "OverflowError: much" in (tmp_path / "output.log").read_text()
    endless = process.start(["import time; time.sleep(100)"], tmp_path, lifeline, {})
    endless.send(signal.SIGTERM)  # before it is known whether it has begun
    assert ended(endless) == -signal.SIGTERM


@pytest.mark.slow  # everything is imported
def test_a_job_leaves_the_next_what_libraries_have_made(lifeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT.replace("warm.load = lambda: None", "pass"))
    process = Warm([sys.executable, str(tmp_path / "script.py")], variables(PYTHONPATH=str(ROOT)))
    image = "import numpy, wandb; wandb.Image(numpy.zeros((4, 4, 3), numpy.uint8))"  # is written to a folder made by the import
    try:
        codes = [ended(process.start([image], tmp_path, lifeline, {}), limit=120) for _ in range(2)]
    finally:
        process.close()
    assert codes == [0, 0], (tmp_path / "output.log").read_text()


def test_the_fork_that_stands_ready_may_be_lost(process, lifeline, tmp_path):
    assert ended(process.start(["pass"], tmp_path, lifeline, {})) == 0
    for _ in range(3):
        waits = below(process.process.pid)
        assert len(waits) == 1
        os.kill(waits[0], signal.SIGKILL)
        while goes_on(waits[0]):
            time.sleep(0.01)
        assert ended(process.start(["pass"], tmp_path, lifeline, {})) == 0
    waits = below(process.process.pid)
    process.close()
    until = time.monotonic() + 2
    while any(map(goes_on, waits)):
        assert time.monotonic() < until, "it waits for nobody"
        time.sleep(0.01)


def below(number):
    """The processes that one has started, and that have not ended."""
    with open(f"/proc/{number}/task/{number}/children") as file:
        return [child for child in map(int, file.read().split()) if goes_on(child)]


def test_what_words_are_composed_to_reaches_the_fork(process, lifeline, tmp_path):
    look = "from recipes.launch import warm; print(list(warm.composed))"
    given = bytes(range(256)) + b"\n{}\n"
    for composed in (given, b""):
        (tmp_path / "output.log").unlink(missing_ok=True)
        assert ended(process.start([look], tmp_path, lifeline, {}, composed)) == 0
        assert json.loads((tmp_path / "output.log").read_text()) == list(composed)


def test_forks_draw_on_their_own(process, lifeline, tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    for job in [process.start(["import random; print(random.random())"], folder, lifeline, {}) for folder in folders]:
        assert ended(job) == 0
    first, second = (float((folder / "output.log").read_text()) for folder in folders)
    assert first != second


def test_what_is_lost_is_told(process, lifeline, tmp_path):
    endless = process.start(["import time; time.sleep(100)"], tmp_path, lifeline, {})
    while endless.number is None:
        endless.poll()
    assert process.lives
    process.process.kill()
    assert ended(endless) == -signal.SIGKILL and not process.lives
    late = process.start(["pass"], tmp_path, lifeline, {})
    assert ended(late) == -signal.SIGKILL
    until = time.monotonic() + 2
    while goes_on(endless.number):
        assert time.monotonic() < until, "a job goes on without the process that it was forked of"
        time.sleep(0.05)


def goes_on(number):
    """Whether a process has not ended."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().split()[2] != "Z"
    except OSError:
        return False


def test_a_process_of_somebody_else_s_has_no_parent(monkeypatch):
    called = []
    monkeypatch.setattr(parent, "ends_by", called.append)
    monkeypatch.delenv(parent.PARENT, raising=False)
    parent.find()
    monkeypatch.setenv(parent.PARENT, "no number")
    parent.find()
    assert not called and parent.PARENT not in os.environ


def test_all_is_imported_without_a_thread_of_ours_or_a_random_number():
    code = (
        "import threading, numpy, torch\n"
        "before = numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()\n"
        "from recipes.launch import warm\n"
        "warm.load()\n"
        "assert before == (numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())\n"
        "assert threading.enumerate() == [threading.main_thread()] and not torch.cuda.is_initialized()\n"
        "import sys; assert {'recipes.run.train', 'plugins.augmentation.mixup', 'torchvision'} <= set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def left(folder):
    """What a sweep's jobs have left: the files, the numbers logged, the result, the weights."""
    found = {}
    for job in sorted(path.parent for path in folder.glob("*/result.json")):
        result = json.loads((job / "result.json").read_text())
        weights = torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        config = (job / "config.yaml").read_text()
        files = {str(path.relative_to(job)) for path in job.rglob("*") if path.is_file() and "wandb" not in path.parts}
        found[job.name] = (files, (job / "metrics.csv").read_text(), result["metrics"], result["best_step"], config, weights)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "further", [("hydra.launcher.n_jobs=2",), ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")]
)
def test_warm_and_fresh_jobs_are_equal_bit_for_bit(tmp_path, further):
    words = (
        "-m",
        "seed=0,1",
        "+regularizer=[],[dropout]",
        "+augmentation=mixup",
        "model=cnn",
        "max_epochs=2",
        "logger=csv",
        *further,
    )
    for start in ("warm", "fresh"):
        done = command("train.py", *words, f"hydra.launcher.start={start}", f"sweep={start}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    warm_ones, fresh_ones = left(tmp_path / "warm"), left(tmp_path / "fresh")
    assert list(warm_ones) == list(fresh_ones) and len(warm_ones) == 4
    for name, (*found, weights) in warm_ones.items():
        *expected, others = fresh_ones[name]
        assert found == expected
        assert all(torch.equal(weight, others[key]) for key, weight in weights.items())


SOON = 6  # seconds in which all has ended; on a machine that does nothing else 2
KINDS = {
    "ranks": ("train.py", "trainer=ddp", "trainer.devices=2"),
    "jobs": ("train.py", "-m", "seed=0,1", "hydra.launcher.n_jobs=2"),
    "fresh jobs": ("train.py", "-m", "seed=0,1", "hydra.launcher.n_jobs=2", "hydra.launcher.start=fresh"),
    "jobs with ranks": ("train.py", "-m", "seed=0,1", "trainer=ddp", "trainer.devices=2"),
    "torchrun": ("torchrun", "trainer=ddp", "trainer.devices=2"),
}


def marked(mark):
    """The processes that have inherited a variable, without those that have ended and only wait to be read."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                ours = mark.encode() in file.read()
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if ours and words:
            found.append(f"{name} {words}")
    return found


@pytest.mark.slow
@pytest.mark.waits
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_what_was_killed_at_any_moment(tmp_path, kind):
    script, *words = KINDS[kind]
    small = ("model=linear", "max_steps=1000000", "logger=csv", "trainer.progress=false", "trainer.accelerator=cpu")
    start = torchrun("train.py") if script == "torchrun" else arguments("train.py")
    drawn = random.Random(kind)
    for number, moment in enumerate([0.001, *(drawn.uniform(0, 9) for _ in range(9))]):
        mark = f"MARK={tmp_path}/{number}"
        place = f"sweep={tmp_path}/{number}" if "-m" in words else f"hydra.run.dir={tmp_path}/{number}"
        process = subprocess.Popen(
            [*start, *words, *small, place],
            **{"env": variables(MARK=f"{tmp_path}/{number}"), "cwd": tmp_path, "start_new_session": True},
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL},
        )
        time.sleep(moment)
        process.kill()
        process.wait()
        until = time.monotonic() + SOON
        while (there := marked(mark)) and time.monotonic() < until:
            time.sleep(0.05)
        for line in there:
            os.kill(int(line.split()[0]), signal.SIGKILL)
        assert not there, f"{kind}, killed after {moment:.3f} s"
