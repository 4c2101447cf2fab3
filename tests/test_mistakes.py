"""What a user can do wrong: one line, no traceback, exit code 2, nothing trained."""

import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.config.catalogue import Catalogue
from recipes.config.composing import check
from tests.command import SMALL, command, mistake, run_folder, trained
from tests.hints import commands
from tests.sparsely import sparsely

FAST = ("logger=[]", "trainer.progress=false", "max_steps=2")


@pytest.fixture
def npz(tmp_path):
    """Images of 2 × 2 pixels."""
    path = tmp_path / "small.npz"
    np.savez(path, x=np.random.rand(40, 2, 2).astype(np.float32), y=np.arange(40) % 2)
    return path


TABLE = [line.strip() for line in (Path(__file__).parent / "mistakes.txt").read_text().splitlines() if line[:1] != "#"]
# what a command may still lack that is right otherwise
LACKS = (
    "looked for mnist.npz",
    "looked for speech_digits.npz",
    "means all GPUs, and there is none",
    "data.path must be the path of an npz file",
)
MISTAKES = dict(zip(TABLE[::2], TABLE[1::2], strict=True))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run, a sweep, files of one's own, and arrays that nothing can be learnt from."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "empty").mkdir()
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    (folder / "file").write_text("")
    x, y = np.random.rand(40, 4).astype(np.float32), np.arange(40) % 2
    arrays = {
        "img": {"x": x.reshape(40, 2, 2), "y": y},
        "one": {"x": x, "y": np.zeros(40, int)},
        "nan": {"x": x * np.nan, "y": y},
        "lens": {"x": x, "y": y[:30]},
        "neg": {"x": x, "y": np.arange(40) % 3 - 1},
        "few": {"x": x[:2], "y": y[:2]},
        "nox": {"a": x},
        "str": {"x": np.array(list("abcd") * 10), "y": y},
        "reg": {"x": x, "y": x[:, 0]},
        "obj": {"x": np.array([{}, []] * 20, dtype=object), "y": y},
    }
    for name, content in arrays.items():
        np.savez(folder / f"{name}.npz", **content)
    (folder / "round" / "recipe").mkdir(parents=True)
    for name, other in (("around", "back"), ("back", "around")):
        (folder / "round" / "recipe" / f"{name}.yaml").write_text(f"# @package _global_\ndefaults:\n  - /recipe: {other}\n")
    for words in (("hydra.run.dir=run",), ("-m", "seed=0,1", "sweep=study")):
        assert command("train.py", *SMALL, *words, cwd=folder, forked=True).returncode == 0
    return folder


def contents(folder):
    """All that is in a folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


FOLLOWED = set()


def follow(place, script, words, output):
    """Type what was advised, the first time it is; it trains nothing here, and a comparison leaves its files in `output`."""
    print("advised:", script, *words)
    if (place, script, *words) in FOLLOWED:
        return
    FOLLOWED.add((place, script, *words))
    sweeps = [word for word in words if word in ("-m", "--multirun")]
    if sweeps:  # what is checked before a sweep begins
        check(Catalogue(), [word for word in words if word not in sweeps], multirun=True)
        return
    if script == "train.py" and not any(word in ("--help", "-h") or word.startswith("resume=") for word in words):
        words = [*words, "explain=true"]
    if script == "compare.py":
        words = [*words, "--output", str(output)]
    done = command(script, *words, cwd=place, forked=True)
    assert done.returncode == 0 or any(lack in done.stderr for lack in LACKS)


@pytest.mark.parametrize("line", sparsely(MISTAKES))
def test_a_mistake_is_one_line_and_changes_nothing(place, line, tmp_path):
    script, *words = shlex.split(line)
    if not script.endswith(".py"):
        script, words = "train.py", [script, *words]
    before = contents(place)
    done = command(script, *words, cwd=place, forked=True)
    assert done.returncode == 2 and "Traceback" not in done.stdout
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ") and MISTAKES[line] in done.stderr
    for advised in commands(script, words, done.stderr.removeprefix("error: ").strip()):
        follow(place, *advised, tmp_path / "comparison")
    assert contents(place) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("+regularizer=dropout regularizer.dropout.p=1.5 data=mnist", "p must be a probability between 0 and 1, got 1.5"),
        ("optimizer.lr=-1 data=mnist", "optimizer.lr must be a number ≥ 0, got -1"),
    ],
)
def test_a_value_out_of_range_is_told_before_data_is_looked_for(tmp_path, words, says):
    assert says in mistake(*words.split(), *FAST, cwd=tmp_path, forked=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "bytes"])
def test_a_broken_npz(tmp_path, npz, damage):
    content = npz.read_bytes()
    if damage == "cut":
        npz.write_bytes(content[:300])
    else:
        with zipfile.ZipFile(npz) as archive:
            start = archive.getinfo("x.npy").header_offset
        npz.write_bytes(content[: start + 200] + b"\0\1\2\3" + content[start + 204 :])
    assert "small.npz" in mistake("data=npz", f"data.path={npz}", *FAST, cwd=tmp_path, forked=True)


def test_a_technique_that_finds_no_place(tmp_path):
    message = mistake("model=linear", "+regularizer=dropout", *FAST, cwd=tmp_path, forked=True)
    assert "no activation in Linear" in message and "ReLU" in message


@pytest.mark.parametrize("made", ["nothing", "empty", "strange"])
def test_resume_of_a_folder_that_is_no_run(tmp_path, made):
    if made != "nothing":
        (tmp_path / "folder").mkdir()
    if made == "strange":
        (tmp_path / "folder" / "result.json").write_text("{}")
    message = mistake("resume=folder", cwd=tmp_path, forked=True)
    assert "looked for config.yaml and checkpoints/last.ckpt" in message


def test_an_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in mistake("hydra.run.dir=file/x", cwd=tmp_path, forked=True)
    assert "cannot be written" in mistake("hydra.run.dir=file", cwd=tmp_path, forked=True)
    assert "cannot be written" in mistake("-m", "seed=0,1", "hydra.sweep.dir=file/x", cwd=tmp_path, forked=True)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="the device is there")
def test_a_device_that_is_not_there(tmp_path):
    assert "trainer.accelerator=cpu" in mistake("trainer.accelerator=gpu", *FAST, cwd=tmp_path, forked=True)


def test_processes_without_a_common_folder(tmp_path):
    together = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert "hydra.run.dir=FOLDER" in mistake(cwd=tmp_path, forked=True, **together)
    assert "one process with -m" in mistake("-m", "seed=0,1", cwd=tmp_path, forked=True, **together)


def test_what_a_run_cannot_be_resumed_or_evaluated_with(tmp_path):
    assert command("train.py", "model=linear", *FAST, cwd=tmp_path, forked=True).returncode == 0
    run = run_folder(tmp_path)
    for path in trained(tmp_path):
        path.rename(path.with_suffix(".kept"))
    assert "seed=1: cannot be changed on resume" in mistake(f"resume={run}", "seed=1", cwd=tmp_path, forked=True)
    assert "did you mean max_epochs=3?" in mistake(f"resume={run}", "max_epoch=3", cwd=tmp_path, forked=True)
    assert "cannot be changed on evaluation" in mistake(
        str(run), "optimizer.lr=1", cwd=tmp_path, script="evaluate.py", forked=True
    )
    assert "did you mean data=mnist?" in mistake(str(run), "data=mnst", cwd=tmp_path, script="evaluate.py", forked=True)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("torch.optim.SGD", "os.system"))
    assert "which no option of optimizer names" in mistake(f"resume={run}", cwd=tmp_path, forked=True)


@pytest.mark.slow
def test_a_failure_that_is_not_the_users_keeps_its_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sklearn.datasets\n\ndef load_digits():\n    raise ZeroDivisionError('inside')\n\nsklearn.datasets.load_digits = load_digits\n"
    )
    done = command("train.py", *FAST, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "Traceback" in done.stderr and "ZeroDivisionError: inside" in done.stderr


@pytest.mark.parametrize(
    ("script", "words"),
    [
        *(("train.py", word) for word in ("resume=NAME", "sweep=NAME", "hydra.run.dir=NAME", "data=npz data.path=NAME")),
        *(
            ("train.py", "--config-dir NAME"),
            ("evaluate.py", "NAME"),
            ("compare.py", "NAME"),
            ("compare.py", "--output NAME run"),
        ),
    ],
)
def test_a_name_longer_than_files_have(place, script, words):
    for name in ("x" * 5000, "x/" * 3000):
        before = contents(place)
        done = command(script, *words.replace("NAME", name).split(), cwd=place, forked=True)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert "name too long" in done.stderr.lower() or "there is no" in done.stderr or "no file" in done.stderr
        assert len(done.stderr) < 1200 and contents(place) == before
