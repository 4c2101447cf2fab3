"""The commands that are printed when all goes well, or is stopped: they are typed, and do what is said of them."""

import json
import re
import shlex
import shutil
import signal
import subprocess

import numpy as np
import pytest

from recipes.config.catalogue import Catalogue
from recipes.config.composing import check
from tests.command import LIMIT, SMALL, arguments, as_at_home, command, variables, wait_until
from tests.hints import COMMAND

NAMES = ("run", "my run", "it's a=b,c", "-x", "{é}")  # of folders
LATER = {"my run", "-x", "{é}"}  # of these only in the long tests


def advised(printed):
    """The commands of a text, as script and words."""
    return [(f"{name}.py", shlex.split(tail)) for line in printed.splitlines() for name, tail in COMMAND.findall(line)]


def follow(printed, cwd, *further):
    """Type the only command of a text; what comes of it."""
    ((script, words),) = advised(printed)
    done = command(script, *words, *further, cwd=cwd, forked=True)
    assert done.returncode == 0
    return done


def in_folder(name):
    """A word that names the folder of a run, or of a sweep."""
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def result(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LATER)) for name in NAMES])
def test_after_a_run(tmp_path, name):
    words = (*SMALL, "+regularizer=l2", f"hydra.run.dir={in_folder(name)}")
    done = command("train.py", *words, cwd=tmp_path, forked=True)
    assert "next     python evaluate.py" in done.stdout
    assert "acc" in follow(done.stdout, tmp_path).stdout


def test_after_the_first_run(tmp_path):
    done = command("train.py", *SMALL, cwd=tmp_path, forked=True)
    follow(done.stdout, tmp_path)  # with the words of the first one
    added, first = sorted(tmp_path.glob("outputs/*/*"), key=lambda folder: (folder / "result.json").stat().st_mtime)[::-1]
    assert result(added)["techniques"] == ["l2", "standardize", "adam"]
    assert result(first)["techniques"] == ["standardize", "sgd"]


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        pytest.param(name, limit, marks=[pytest.mark.slow] * (name in LATER))
        for name, limit in zip(
            NAMES,
            ("max_steps=2", "max_epochs=1", "max_steps=2 scheduler=one_cycle", "max_epochs=1", "max_steps=2"),
            strict=True,
        )
    ],
)
def test_of_a_run_that_is_finished(tmp_path, name, limit):
    words = [*(word for word in SMALL if not word.startswith("max_steps")), *limit.split()]
    done = command("train.py", *words, f"hydra.run.dir={in_folder(name)}", cwd=tmp_path, forked=True)
    assert done.returncode == 0
    steps = result(tmp_path / name)["steps"]
    resume = command("train.py", f"resume={in_folder(name)}", cwd=tmp_path, forked=True)
    assert resume.returncode == 0
    follow(resume.stdout, tmp_path)
    (longest,) = [
        found for found in map(result, {path.parent for path in tmp_path.rglob("result.json")}) if found["steps"] > steps
    ]
    assert longest["steps"] == 2 * steps and longest["status"] == "finished"


def test_words_that_change_nothing_of_a_finished_run_are_told(tmp_path):
    assert command("train.py", *SMALL, "hydra.run.dir=run", cwd=tmp_path, forked=True).returncode == 0
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = command("train.py", "resume=run", "max_steps=2", "notes=x", "trainer.monitor=val/loss", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and "nothing is changed by notes=x trainer.monitor=val/loss" in done.stdout
    assert "nothing is changed" not in command("train.py", "resume=run", cwd=tmp_path, forked=True).stdout
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == left


@pytest.mark.slow
def test_of_a_run_that_was_stopped(tmp_path):
    words = (*(word for word in SMALL if not word.startswith("max_steps")), "max_epochs=30", "hydra.run.dir='my run'")
    process = subprocess.Popen(
        arguments("train.py", *words, "trainer.save_every_n_steps=20"),
        cwd=tmp_path,
        env=variables(),
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "my run" / "checkpoints" / "last.ckpt").exists, process)
    process.send_signal(signal.SIGINT)
    printed = as_at_home(process.communicate(timeout=LIMIT)[0])
    assert result(tmp_path / "my run")["status"] == "stopped", printed
    assert "go on    python train.py" in printed
    follow(printed, tmp_path)
    assert result(tmp_path / "my run") | {"status": "finished", "steps": 1200} == result(tmp_path / "my run")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_of_a_sweep_in_which_jobs_failed(tmp_path, name):
    data = tmp_path / "data.npz"
    np.savez(data, x=np.random.rand(40, 4).astype(np.float32), y=np.arange(40) % 2)
    words = ("-m", *SMALL, "data=npz", f"data.path={data},{tmp_path / 'later.npz'}", f"hydra.sweep.dir={in_folder(name)}")
    done = command("train.py", *words, cwd=tmp_path, forked=True)
    assert done.returncode == 1 and "to run them again: " in done.stderr
    shutil.copy(data, tmp_path / "later.npz")
    follow(done.stderr, tmp_path)
    assert [result(tmp_path / name / job)["status"] for job in "01"] == ["finished"] * 2
    head = (tmp_path / name / "jobs.yaml").read_text()
    commands = advised("\n".join(line[1:] for line in head.splitlines() if line.startswith("#")))
    assert [script for script, _ in commands] == ["train.py", "compare.py"]
    for script, words in commands:
        assert "later.npz" in command(script, *words, cwd=tmp_path, forked=True).stdout


@pytest.mark.slow
def test_of_a_sweep_that_was_stopped(tmp_path):
    words = ("-m", *SMALL, "seed=0,1", "hydra.sweep.dir='my sweep'")
    process = subprocess.Popen(
        arguments("train.py", *words),
        cwd=tmp_path,
        env=variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until((tmp_path / "my sweep" / "0" / "result.json").exists, process)
    process.send_signal(signal.SIGINT)
    printed = as_at_home(process.communicate(timeout=LIMIT)[0])
    if "go on    " in printed:  # else both jobs had ended
        follow(printed, tmp_path)
    assert [result(tmp_path / "my sweep" / job)["status"] for job in "01"] == ["finished"] * 2


@pytest.mark.slow
def test_of_a_comparison(tmp_path):
    assert command("train.py", *SMALL, "hydra.run.dir='my run'", cwd=tmp_path, forked=True).returncode == 0
    printed = command("compare.py", "my run", cwd=tmp_path, forked=True).stdout
    ((script, (flag, *words)),) = advised(printed)
    assert (script, flag) == ("train.py", "-m") and "seed=0,1,2,3,4" in words
    check(Catalogue(), words, multirun=True)
    words = ["seed=0,1" if word.startswith("seed=") else word for word in words]
    done = command(script, flag, *words, cwd=tmp_path, forked=True)
    assert done.returncode == 0 and "There is one group only" not in done.stdout


@pytest.mark.slow
def test_the_examples_of_the_help(tmp_path):
    for words in (
        ("hydra.run.dir=RUN_FOLDER", "+regularizer=dropout", "model=mlp", *SMALL[1:]),
        ("-m", "sweep=FOLDER", "+regularizer=[],[dropout]", "model=mlp", *SMALL[1:]),
    ):
        assert command("train.py", *words, cwd=tmp_path, forked=True).returncode == 0
    for name, source in (("multirun/DATE/TIME", "FOLDER"), ("outputs/a", "FOLDER/0"), ("outputs/b", "FOLDER/1")):
        shutil.copytree(tmp_path / source, tmp_path / name)
    np.savez(tmp_path / "FILE.npz", x=np.random.rand(90, 8, 8).astype(np.float32), y=np.arange(90) % 10)
    (tmp_path / "FILE.npz").rename(tmp_path / "FILE")
    for script in ("evaluate.py", "compare.py", "train.py"):
        printed = command(script, "--help", cwd=tmp_path, forked=True).stdout
        examples = [re.split(r" {2,}", line.strip())[0] for line in printed.splitlines() if line.startswith("  python ")]
        assert len(examples) >= 3
        for line in examples:
            _, name, *words = shlex.split(line)
            if "hydra/launcher=slurm" in words:
                check(Catalogue(), [word for word in words if word != "-m"], multirun=True)
                continue
            if name == "train.py" and "sweep=FOLDER" not in words:
                words += SMALL[1:]
            assert command(name, *words, cwd=tmp_path, forked=True).returncode == 0, line
