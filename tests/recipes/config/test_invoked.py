"""The commands that are printed work from where one stands, however the command was started, and on the data of the run."""

import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from recipes.config.invoked import as_typed, invocation
from recipes.models.linear import LinearModel
from recipes.models.mlp import MLP
from recipes.run.advice import with_a_technique
from tests.command import ROOT, SMALL, variables

TEXT = "go on: python train.py -m sweep=a, python evaluate.py run, python compare.py a; train.py"


@pytest.mark.parametrize(
    ("argv", "train", "evaluate", "compare"),
    [
        (["train.py", "seed=1"], "python train.py", "python evaluate.py", "python compare.py"),
        (["compare.py"], "python train.py", "python evaluate.py", "python compare.py"),
        (["../far/train.py"], "python ../far/train.py", "python ../far/evaluate.py", "python ../far/compare.py"),
        (["my code/evaluate.py"], "python 'my code/train.py'", "python 'my code/evaluate.py'", "python 'my code/compare.py'"),
        (["/x/recipes/__main__.py"], "python -m recipes", "python -m recipes evaluate", "python -m recipes compare"),
        (["/usr/bin/pytest"], "python train.py", "python evaluate.py", "python compare.py"),
        (
            ["train.py", "--config-dir", "my conf", "model=mine"],
            "python train.py --config-dir 'my conf'",
            "python evaluate.py --config-dir 'my conf'",
            "python compare.py",
        ),
        (
            ["train.py", "--config-dir=mine"],
            "python train.py --config-dir mine",
            "python evaluate.py --config-dir mine",
            "python compare.py",
        ),
    ],
)
def test_as_typed(monkeypatch, argv, train, evaluate, compare):
    monkeypatch.setattr(sys, "argv", argv)
    assert [invocation(name) for name in ("train", "evaluate", "compare")] == [train, evaluate, compare]
    assert as_typed(TEXT) == f"go on: {train} -m sweep=a, {evaluate} run, {compare} a; train.py"


@pytest.mark.parametrize("found", [True, False])
def test_the_installed_command_is_typed_by_its_name_where_the_shell_finds_it(monkeypatch, tmp_path, found):
    script = tmp_path / "bin" / "lightning-recipes"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    if found:
        monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script), "--config-dir=mine"])
    name = "lightning-recipes" if found else str(script)
    assert invocation("train") == f"{name} train --config-dir mine" and invocation("compare") == f"{name} compare"
    assert as_typed("python train.py -m sweep=a") == f"{name} train --config-dir mine -m sweep=a"


@pytest.mark.parametrize(("model", "technique"), [(MLP((4,), 2, [3]), "dropout"), (LinearModel((4,), 2), "l2")])
def test_the_next_run_has_the_data_and_the_model_of_this_one(model, technique):
    words = [
        "data=npz",
        "data.path=my file.npz",
        "optimizer.lr=1",
        "hydra.run.dir=x",
        "name=a",
        "optimizer=adamw",
        "max_steps=3",
    ]
    following = with_a_technique(words, model)
    kept = ["data=npz", "data.path=my file.npz", "max_steps=3"]
    assert shlex.split(following) == ["python", "train.py", *kept, f"+regularizer={technique}", "optimizer=adam"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["far", "module"])
def test_what_is_printed_can_be_typed(tmp_path, way):
    np.savez(tmp_path / "mine.npz", x=np.random.rand(60, 4).astype(np.float32), y=np.arange(60) % 3)
    script = [os.path.relpath(ROOT / "train.py", tmp_path)] if way == "far" else ["-m", "recipes"]
    environment = variables(PYTHONPATH=str(ROOT))

    def typed(line):
        words = shlex.split(line)
        assert words[0] == "python"
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = typed(shlex.join(["python", *script, "data=npz", "data.path=mine.npz", *SMALL]))
    second = typed(re.search(r"^next +(.*)$", first, re.MULTILINE)[1])
    results = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/*/result.json")]
    assert len(results) == 2 and {each["config"]["data"]["path"] for each in results} == {"mine.npz"}
    assert sorted(len(each["techniques"]) for each in results) == [2, 3]
    assert "acc" in typed(re.search(r"^next +(.*)$", second, re.MULTILINE)[1])


@pytest.mark.slow
def test_a_sweep_and_ranks_of_the_module(tmp_path):
    environment = variables(PYTHONPATH=str(ROOT))
    words = ("-m", "+wrapper=none,sam", "trainer=ddp", "trainer.devices=2", "sweep=s", *SMALL)
    command = [sys.executable, "-m", "recipes", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [json.loads(path.read_text()) for path in tmp_path.glob("s/*/result.json")]
    assert [job["status"] for job in jobs] == ["finished"] * 2 and {job["devices"] for job in jobs} == {2}
    command = [sys.executable, "-m", "recipes", "compare", "s", "--metric", "test/acc"]
    compared = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert compared.returncode == 0 and "nothing added" in compared.stdout
