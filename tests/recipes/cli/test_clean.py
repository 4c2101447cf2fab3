"""The command clean: what finished runs need no more is listed, and removed once somebody has said so."""

import json
import os
import pty
import subprocess
import sys

import pytest

from recipes.cli import clean
from recipes.store.files import hold
from tests.command import ROOT, command, variables


def run(*words, cwd):
    program = [sys.executable, "-m", "recipes", "clean", *words]
    return subprocess.run(program, cwd=cwd, env=variables(PYTHONPATH=str(ROOT)), capture_output=True, text=True, check=False)


@pytest.fixture
def two(folders):
    """A finished run and one that was stopped."""
    for name in ("done", "open"):
        folders(name).train("max_steps=40", "model=linear")
    result = folders("open").path / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"status": "stopped"}))
    return folders("done"), folders("open")


def checkpoints(folder):
    return sorted(path.name for path in (folder.path / "checkpoints").iterdir())


def test_it_lists_and_asks_to_say_yes(two):
    done, _ = two
    before = {path: path.stat().st_mtime_ns for path in done.path.parent.rglob("*")}
    told = run("done", "open", cwd=done.path.parent)
    assert told.returncode == 0, told.stderr
    size = (done.path / "checkpoints" / "last.ckpt").stat().st_size
    first, second, last = told.stdout.splitlines()
    assert clean.in_bytes(size) in first and first.endswith("done  last.ckpt")
    assert second.split() == ["kept", "open", "it", "is", "stopped"]
    assert last.endswith("type python -m recipes clean done open keep=best yes=true")
    assert before == {path: path.stat().st_mtime_ns for path in done.path.parent.rglob("*")}


@pytest.mark.parametrize(
    ("keep", "stays"),
    [("best", ["best.ckpt"]), ("last", ["best.ckpt", "last.ckpt", "previous.ckpt"]), ("nothing", [])],
)
def test_what_is_kept(two, keep, stays):
    done, other = two
    (done.path / "checkpoints" / "previous.ckpt").write_bytes(b"x" * 100)
    (done.path / "checkpoints" / "mine.ckpt").write_bytes(b"mine")
    told = run(".", f"keep={keep}", "yes=true", cwd=done.path.parent)
    said = "nothing to remove" if keep == "last" else "removed "
    assert told.returncode == 0 and told.stdout.splitlines()[-1].startswith(said)
    assert checkpoints(done) == sorted([*stays, "mine.ckpt"]) and checkpoints(other) == ["best.ckpt", "last.ckpt"]
    again = run(".", f"keep={keep}", cwd=done.path.parent)
    assert again.stdout.splitlines()[-1] == "nothing to remove in 2 runs"


def test_what_stays_evaluates_predicts_and_compares_but_is_not_trained_further(two):
    done, _ = two
    place = done.path.parent
    assert run("done", "yes=true", cwd=place).returncode == 0
    assert command("evaluate.py", "done", cwd=place, forked=True).returncode == 0
    assert command("predict.py", "done", cwd=place, forked=True).returncode == 0
    assert command("compare.py", "done", cwd=place, forked=True).returncode == 0
    refused = command("train.py", "resume=done", "max_steps=80", cwd=place, forked=True)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "last.ckpt" in refused.stderr


def test_a_run_that_trains_is_left_alone(two):
    done, _ = two
    with hold(done.path / "train.log", "trains"):
        told = run("done", "yes=true", cwd=done.path.parent)
    assert "a process trains there" in told.stdout and checkpoints(done) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    ("answer", "stays"), [("y", ["best.ckpt"]), ("n", ["best.ckpt", "last.ckpt"]), ("", ["best.ckpt", "last.ckpt"])]
)
def test_at_a_terminal_it_asks(two, answer, stays):
    done, _ = two
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "recipes", "clean", "done"]
    process = subprocess.Popen(
        program, cwd=done.path.parent, env=variables(PYTHONPATH=str(ROOT)), stdin=theirs, stdout=subprocess.PIPE, text=True
    )
    os.write(ours, f"{answer}\n".encode())
    said, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert "of 1 run? [y/N]" in said and checkpoints(done) == stays


def test_a_run_that_was_resumed_and_stopped_while_the_question_stood_keeps_all(two):
    done, _ = two
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "recipes", "clean", "done"]
    process = subprocess.Popen(
        program, cwd=done.path.parent, env=variables(PYTHONPATH=str(ROOT)), stdin=theirs, stdout=subprocess.PIPE
    )
    asked = b""
    while b"[y/N]" not in asked:
        more = os.read(process.stdout.fileno(), 1000)
        assert more, asked
        asked += more
    result = done.path / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"status": "stopped"}))
    os.write(ours, b"y\n")
    said, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0 and b" ".join(said.split()) == b"kept done it is stopped removed 0 bytes of 0 runs"
    assert checkpoints(done) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "expected folders of runs: python -m recipes clean FOLDER keep=best"),
        (("nowhere",), "there is no folder nowhere"),
        (("done", "keep=worst"), "keep must be one of best, last, nothing, got worst"),
        (("done", "yes=perhaps"), "yes must be true or false, got perhaps"),
        (("done", "kep=best"), "clean has no setting kep; did you mean keep="),
        (("done", "keep=best", "keep=last"), "keep is given twice"),
        (("done", "--force"), "there is no flag --force"),
    ],
)
def test_mistakes_are_one_line(two, words, line):
    refused = run(*words, cwd=two[0].path.parent)
    assert refused.returncode == 2 and line in refused.stderr and refused.stderr.count("\n") == 1
    assert checkpoints(two[0]) == ["best.ckpt", "last.ckpt"]


def test_a_link_in_place_of_a_checkpoint_is_refused(two, tmp_path):
    done, _ = two
    (tmp_path / "precious").write_bytes(b"precious")
    (done.path / "checkpoints" / "last.ckpt").unlink()
    (done.path / "checkpoints" / "last.ckpt").symlink_to(tmp_path / "precious")
    run("done", "yes=true", cwd=done.path.parent)
    assert (tmp_path / "precious").read_bytes() == b"precious" and (done.path / "checkpoints" / "last.ckpt").is_symlink()
