"""Folders of runs and sweeps that somebody has changed at random, given to the real commands.

Each ends with exit code 0 or 2, without a traceback, in time, and leaves every file outside of the folder as it was.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.command import command, once, variables
from tests.forked import command as forked

WORDS = ("model=linear", "max_steps=4", "logger=csv", "trainer.progress=false", "trainer.accelerator=cpu")
LIMIT = 120  # seconds, of a machine that does other things too
BAIT = "api_key: 123456789"
TEXT = ("config.yaml", "result.json", "metrics.csv", "confusion.json", "test.json", "train.log")
IN_RUN = (*TEXT, "checkpoints/last.ckpt", "checkpoints/best.ckpt")
IN_SWEEP = ("jobs.yaml", "sweep.log", "multirun.yaml")
VALUES = (
    *(None, True, 0, -1, 10**30, 1.5, float("nan"), float("inf"), "", "x", "\x1b[31mred", "\ud800", "a\x00b", "\u202eabc"),
    *([], {}, [[]], ["x"], {"_target_": "os.mkdir", "path": "harm"}, "${oc.env:HOME}", "=1+1", "[red]x[/red]", "x" * 10_000),
    *("2020-01-01", {"a": {"_target_": "os.system"}}, [{"_args_": ["x"]}], "../../x", "/dev/zero"),
)
RAW = (
    *(
        b"",
        b"null",
        b"[]",
        b"3",
        b"\xff\xfe\x00",
        b"\x00" * 64,
        b"[" * 50_000,
        b"{" * 50_000,
        b"a: &x [1]\nb: *x",
        b"<<: {a: 1}",
    ),
    *(
        b"a: !!binary aGVsbG8=",
        b"a: !!python/object/apply:os.getcwd []",
        b"1: 2",
        b'{"a": 1e400}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ),
)
WORDS_OF_OTHERS = (
    *(
        "hydra.run.dir=/tmp/harm",
        "+hydra.callbacks.x={_target_: os.mkdir, path: harm}",
        "notes=${oc.env:HOME}",
        "--config-dir=/",
    ),
    *("resume=../outside", "hydra.sweep.dir=../outside", "hydra/launcher=slurm", "hydra.launcher.setup=[reboot]", "-m", ""),
    *("seed=0\x1b[31m", "data.root=/", "optimizer.lr=x", "hydra.searchpath=[file:///]", "seed=", "~optimizer", "seed=[["),
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run and a sweep as they are left."""

    def make(folder):
        assert command("train.py", *WORDS, "hydra.run.dir=run", cwd=folder, forked=True, timeout=600).returncode == 0
        assert (
            command("train.py", "-m", *WORDS, "seed=0,1", "sweep=sweep", cwd=folder, forked=True, timeout=600).returncode == 0
        )

    return once(tmp_path_factory.getbasetemp(), "strangers", make)


# ------------------------------------------------------------------ mutations


def nodes(value):
    """All mappings and lists with something in them."""
    found = [value] if isinstance(value, dict | list) and value else []
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found += nodes(inner)
    return found


def change_value(draw, content):
    """A value of another type, a key removed, added or swapped, somewhere in plain content."""
    if not (there := nodes(content)):
        return content
    node = draw(st.sampled_from(there))
    key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
    other = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
    kind = draw(st.sampled_from(("replace", "remove", "swap", "add")))
    if kind == "replace":
        node[key] = draw(st.sampled_from(VALUES))
    elif kind == "remove":
        del node[key]
    elif kind == "swap":
        node[key], node[other] = node[other], node[key]
    elif isinstance(node, dict):
        node[draw(st.sampled_from(("x", "_target_", "hydra", "\x1b[0m", "_partial_")))] = draw(st.sampled_from(VALUES))
    else:
        node.append(draw(st.sampled_from(VALUES)))
    return content


def change_content(draw, path):
    """A file that parses, with other content; what cannot be written in its format is left as it is."""
    try:
        if path.suffix == ".json":
            path.write_text(json.dumps(change_value(draw, json.loads(path.read_text()))))
        elif path.suffix == ".yaml":
            path.write_text(yaml.safe_dump(change_value(draw, yaml.safe_load(path.read_text())), allow_unicode=True))
        elif path.suffix == ".ckpt" and (content := loaded(path)) is not None:
            torch.save(change_value(draw, content), path)
    except (ValueError, TypeError, yaml.YAMLError, OverflowError, RuntimeError, pickle.PicklingError):
        return


def loaded(path):
    """A checkpoint; None where an earlier change has damaged it, of which torch's reader makes whatever error."""
    try:
        return torch.load(path, weights_only=True)
    except Exception:
        return None


def change_bytes(draw, path):
    """A file cut off, with a byte flipped, in another encoding, or of something else."""
    content = path.read_bytes()
    kind = draw(st.sampled_from(("cut", "flip", "utf-16", "raw")))
    if kind == "raw":
        content = draw(st.sampled_from(RAW))
    elif kind == "utf-16":
        content = content.decode(errors="replace").encode("utf-16")
    elif content:
        at = draw(st.integers(0, len(content) - 1))
        content = (
            content[:at]
            if kind == "cut"
            else content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
        )
    path.write_bytes(content)


def change_kind(draw, path, outside):
    """Something else in a file's place, or in that of the folder it lies in."""
    if path.parent.name == "checkpoints" and draw(st.booleans()):
        path = path.parent
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    kind = draw(st.sampled_from(("link", "dangling", "folder link", "pipe", "folder", "nothing")))
    if kind == "link":
        path.symlink_to(outside / "secret.yaml")
    elif kind == "dangling":
        path.symlink_to(outside / "new")
    elif kind == "folder link":
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()


def change_words(draw, path):
    """Further words in the plan of a sweep."""
    plan = yaml.safe_load(path.read_text())
    word = draw(st.sampled_from(WORDS_OF_OTHERS))
    draw(st.sampled_from([plan["words"], plan["hydra"], *plan["jobs"].values()])).append(word)
    path.write_text(yaml.safe_dump(plan))


@st.composite
def changes(draw):
    """What is done to which file, as a function of the folder, and which command gets it."""
    script = draw(st.sampled_from(("resume", "evaluate", "compare", "sweep")))
    where = "sweep" if script == "sweep" or (script == "compare" and draw(st.booleans())) else "run"
    inside = draw(st.sampled_from(("", "0/", "1/"))) if where == "sweep" else ""
    name = draw(st.sampled_from(IN_SWEEP if where == "sweep" and not inside else IN_RUN))
    further = draw(st.integers(1, 2))

    def apply(folder, outside):
        path = folder / f"{inside}{name}"
        for _ in range(further):
            if path.is_symlink() or not path.is_file():
                return
            kinds = [change_content, change_bytes, lambda draw, path: change_kind(draw, path, outside)]
            if path.name == "jobs.yaml":
                kinds.append(change_words)
            try:
                draw(st.sampled_from(kinds))(draw, path)
            except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError, RuntimeError):
                return  # it does not parse any more

    return script, where, apply


# ------------------------------------------------------------------ the test


def snapshot(folder):
    """What lies below a folder, links not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
    return found


def try_it(original, script, where, apply):
    """Give a changed copy to a command."""
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        work, outside = base / "work", base / "outside"
        work.mkdir()
        outside.mkdir()
        (outside / "secret.yaml").write_text(BAIT)
        (outside / "checkpoints").mkdir()
        shutil.copytree(original / where, work / where, symlinks=True)
        apply(work / where, outside)
        words = {
            "resume": ("train.py", f"resume={where}", "max_steps=6"),
            "evaluate": ("evaluate.py", where),
            "compare": ("compare.py", where, "--output", "out"),
            "sweep": ("train.py", f"sweep={where}"),
        }[script]
        before = snapshot(outside)
        done = forked(*words, cwd=work, env=variables(), timeout=LIMIT)
        told = f"{words}\n{done.stdout}\n{done.stderr}"
        assert done.returncode in ((0, 1, 2) if script == "sweep" else (0, 2)), told  # a job that fails by itself: 1
        assert "Traceback" not in told and BAIT not in told, told
        assert not any(letter in done.stdout + done.stderr for letter in "\x1b\x9b\u202e\x00"), told
        assert snapshot(outside) == before, told
        assert {path.name for path in work.iterdir()} <= {where, "out"}, told


def random_test(examples):
    """The test with so many examples, the same ones each time."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=quiet,
        phases=[Phase.generate],
    )
    @given(st.data())
    def test(original, data):
        try_it(original, *data.draw(changes()))

    return test


test_some_folders_of_strangers = random_test(5)
test_many_folders_of_strangers = pytest.mark.slow(random_test(100))
