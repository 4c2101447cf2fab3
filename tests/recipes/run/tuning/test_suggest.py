import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import arguments, command, variables, wait_until

FEW = ("max_epochs=2", "logger=csv", "trainer.accelerator=cpu", "trainer.progress=false")


@pytest.mark.parametrize(("what", "key"), [("lr", "optimizer.lr"), ("batch_size", "data.batch_size")])
def test_a_single_run_is_told_what_to_type_and_nothing_is_left(tmp_path, what, key):
    done = command("train.py", f"tune={what}", "optimizer=adam", "seed=3", *FEW, cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    value = re.search(rf"found    {key}=(\S+)", done.stdout)[1]
    assert done.stdout.count("←") == 1 and f"{key}={value}" in done.stdout.splitlines()[-1]
    assert "tune" not in done.stdout.splitlines()[-1] and "optimizer=adam seed=3" in done.stdout.splitlines()[-1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_job_of_a_sweep_trains_as_one_that_was_given_the_rate(tmp_path):
    words = ("+regularizer=dropout", "seed=0,1", *FEW)
    done = command("train.py", "-m", "tune=lr", *words, "sweep=tuned", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    assert "optimizer.lr was found before each run, which is part of its time" in done.stdout
    for number in (0, 1):
        run = tmp_path / "tuned" / str(number)
        result = json.loads((run / "result.json").read_text())
        found = result["tuned"]
        assert found["key"] == "optimizer.lr" and result["config"]["optimizer"]["lr"] == found["value"]
        assert result["seconds"] > found["seconds"] > 0 and 10 < found["steps"] <= 100
        alone = (
            "+regularizer=dropout",
            f"seed={number}",
            *FEW,
            f"optimizer.lr={found['value']}",
            f"hydra.run.dir=alone{number}",
        )
        assert command("train.py", *alone, cwd=tmp_path, forked=True).returncode == 0
        assert (tmp_path / f"alone{number}" / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    rows = (tmp_path / "tuned" / "compare.csv").read_text().splitlines()
    assert len(rows) == 2 and ",2," in rows[1]  # one group of two seeds, whatever rates they have


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells when a process listens")
@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("tune=batch_size",), "SIGTERM"),
        pytest.param(("tune=lr", "trainer=ddp", "trainer.devices=2"), "SIGTERM", marks=pytest.mark.slow),
        pytest.param(("tune=lr", "trainer=ddp", "trainer.devices=2"), "SIGINT", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_at_once_what_has_nothing_to_save(tmp_path, words, name):
    ranks, number = 2 * ("trainer=ddp" in words), signal.Signals[name]
    line = arguments("train.py", *words, "model=cnn", "data.batch_size=4096", "trainer.accelerator=cpu", "logger=[]")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, cwd=tmp_path, env=variables(), **pipes) as process:
        below = Path(f"/proc/{process.pid}")

        def listens():
            caught = int(re.search(r"SigCgt:\s*(\w+)", (below / "status").read_text())[1], 16)
            started = (below / f"task/{process.pid}/children").read_text().split()
            return caught >> (signal.SIGTERM - 1) & 1 and len(started) == ranks

        wait_until(listens, process)
        process.send_signal(number)
        try:
            _, told = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == (128 + number if ranks else -number) and "Traceback" not in told and "error" not in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_tuned_job_that_was_stopped_goes_on_with_its_rate(tmp_path):
    done = command("train.py", "-m", "tune=lr", "seed=0", *FEW, "max_steps=30", "sweep=s", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "s/0/result.json").read_text())
    done = command("train.py", "resume=s/0", "max_steps=60", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    second = json.loads((tmp_path / "s/0/result.json").read_text())
    assert second["tuned"] == first["tuned"] and second["steps"] == 60 and second["seconds"] > first["seconds"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    found = []
    for words in ((), ("trainer=ddp", "trainer.devices=2")):
        done = command("train.py", "tune=lr", *FEW, *words, cwd=tmp_path, forked=True)
        assert done.returncode == 0, done.stderr
        found.append(re.search(r"optimizer.lr=(\S+)", done.stdout)[1])
    assert found[0] == found[1]
