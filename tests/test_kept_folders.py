"""What earlier versions have left stays usable: the run and the sweep of tests/data/kept resume, evaluate and compare.

They were made by version 0.1.0, before any class had moved, with

    python train.py hydra.run.dir=run max_epochs=2 model.hidden=[4] data.batch_size=128 trainer.progress=false \
        +regularizer=dropout +averaging=ema +stopping=early +clipping=norm init=normal logger=[csv,tensorboard]
    python train.py -m hydra.sweep.dir=sweep max_epochs=2 model.hidden=[4] data.batch_size=128 trainer.progress=false \
        scheduler=linear optimizer=adam +wrapper=none,sam

without the report and what wandb had written. They are kept as they were; a later format gets folders of its own.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.command import command

KEPT = Path(__file__).parent / "data" / "kept"


@pytest.fixture
def kept(tmp_path):
    shutil.copytree(KEPT, tmp_path, dirs_exist_ok=True)
    return tmp_path


def result(folder):
    return json.loads((folder / "result.json").read_text())


def test_a_run_goes_on(kept):
    before = result(kept / "run")
    done = command("train.py", "resume=run", "max_epochs=4", cwd=kept, forked=True)
    assert done.returncode == 0, done.stderr
    after = result(kept / "run")
    assert after["status"] == "finished" and after["steps"] == 2 * before["steps"]
    assert after["techniques"] == before["techniques"]
    rows, kept_rows = ((folder / "metrics.csv").read_text().splitlines() for folder in (kept / "run", KEPT / "run"))
    assert len(rows) > len(kept_rows) and rows[1].split(",")[0] == kept_rows[1].split(",")[0]
    assert len(list((kept / "run" / "tensorboard").glob("events*"))) > 2


@pytest.mark.parametrize("name", ["run", "sweep/0", "sweep/1"])
def test_a_run_is_measured_again(kept, name):
    done = command("evaluate.py", name, cwd=kept, forked=True)
    assert done.returncode == 0, done.stderr
    assert f"{result(KEPT / name)['metrics']['test/acc']:.4f}" in done.stdout


def test_a_sweep_goes_on_and_is_compared(kept):
    shutil.rmtree(kept / "sweep" / "1")
    done = command("train.py", "-m", "sweep=sweep", cwd=kept, forked=True)
    assert done.returncode == 0, done.stderr
    again, kept_one = result(kept / "sweep" / "1"), result(KEPT / "sweep" / "1")
    assert again["steps"] == kept_one["steps"] and again["config"].keys() >= kept_one["config"].keys()
    done = command("compare.py", "sweep", "run", cwd=kept, forked=True)
    assert done.returncode == 0, done.stderr
    assert "sam" in done.stdout and (kept / "sweep" / "report.html").exists()


def test_what_was_never_touched_is_one_group_with_what_is_made_today(kept):
    """A run of today with the same words but the seed belongs to the same group."""
    words = result(kept / "sweep" / "0")["command"]
    done = command("train.py", *words, "seed=1", "hydra.run.dir=new", "logger=[csv]", cwd=kept, forked=True)
    assert done.returncode == 0, done.stderr
    done = command("compare.py", "sweep/0", "new", cwd=kept, forked=True)
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("optimizer=adam scheduler=linear  2  ") for line in done.stdout.splitlines()) == 1
