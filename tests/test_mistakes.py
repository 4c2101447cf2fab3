"""What a user can do wrong: one line, no traceback, exit code 2, nothing trained."""

import zipfile

import numpy as np
import pytest
import torch

from tests.command import command, mistake, run_folder, trained

FAST = ("logger=[]", "trainer.progress=false", "max_steps=2")


@pytest.fixture
def npz(tmp_path):
    """Images of 2 × 2 pixels."""
    path = tmp_path / "small.npz"
    np.savez(path, x=np.random.rand(40, 2, 2).astype(np.float32), y=np.arange(40) % 2)
    return path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("+regularizr=dropout", "did you mean +regularizer=dropout?"),
        ("regularizr.dropout.p=0.1", "did you mean regularizer.dropout.p?"),
        ("+regularizer=dropot", "did you mean +regularizer=dropout?"),
        ("optimizer=adm", "did you mean optimizer=adam?"),
        ("sed=1", "did you mean seed=1?"),
        ("optimizer.lrr=1", "did you mean optimizer.lr?"),
        ("+regularizer=dropout regularizer.dropout.q=1", "there is mode, p, sites"),
        ("--hlep", "did you mean --help?"),
        ("optimizer.lr=abc", "optimizer.lr must be a number, got 'abc'"),
        ("max_epochs=1.5", "max_epochs must be a whole number, got 1.5"),
        ("-m optimizer=sgd,adm seed=0,1", "did you mean optimizer=adam?"),
        ("optimizer.lr=0.1,0.2", "add -m"),
        ("regularizer=dropout", "write +regularizer=dropout"),
        ("hydra.run.dr=x", "hydra.run.dr"),
    ],
)
def test_names_and_types(tmp_path, words, says):
    assert says in mistake(*words.split(), cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("+regularizer=dropout regularizer.dropout.p=1.5 data=mnist", "p must be a probability between 0 and 1, got 1.5"),
        ("optimizer.lr=-1 data=mnist", "learning rate"),
    ],
)
def test_a_value_out_of_range_is_told_before_data_is_looked_for(tmp_path, words, says):
    assert says in mistake(*words.split(), *FAST, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_data_that_is_not_there(tmp_path):
    message = mistake("data=mnist", *FAST, cwd=tmp_path)
    assert "mnist.npz" in message and str(tmp_path / "data") in message and "data.download=true" in message


def test_a_file_that_is_not_there(tmp_path):
    assert str(tmp_path / "nothing.npz") in mistake("data=npz", "data.path=nothing.npz", *FAST, cwd=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "bytes"])
def test_a_broken_npz(tmp_path, npz, damage):
    content = npz.read_bytes()
    if damage == "cut":
        npz.write_bytes(content[:300])
    else:
        with zipfile.ZipFile(npz) as archive:
            start = archive.getinfo("x.npy").header_offset
        npz.write_bytes(content[: start + 200] + b"\0\1\2\3" + content[start + 204 :])
    assert "small.npz" in mistake("data=npz", f"data.path={npz}", *FAST, cwd=tmp_path)


def test_a_model_too_small_for_the_image(tmp_path, npz):
    assert "too small" in mistake("data=npz", f"data.path={npz}", "model=cnn", *FAST, cwd=tmp_path)


def test_a_technique_that_finds_no_place(tmp_path):
    message = mistake("model=linear", "+regularizer=dropout", *FAST, cwd=tmp_path)
    assert "no activation in Linear" in message and "ReLU" in message


def test_two_that_exclude_each_other(tmp_path):
    message = mistake("+wrapper=sam", "trainer.precision=16-mixed", *FAST, cwd=tmp_path)
    assert "wrapper/sam" in message and "trainer.precision=16-mixed" in message and "bf16-mixed" in message


@pytest.mark.parametrize("made", ["nothing", "empty", "strange"])
def test_resume_of_a_folder_that_is_no_run(tmp_path, made):
    if made != "nothing":
        (tmp_path / "folder").mkdir()
    if made == "strange":
        (tmp_path / "folder" / "result.json").write_text("{}")
    message = mistake("resume=folder", cwd=tmp_path)
    assert "looked for config.yaml and checkpoints/last.ckpt" in message


def test_an_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in mistake("hydra.run.dir=file/x", cwd=tmp_path)
    assert "cannot be written" in mistake("hydra.run.dir=file", cwd=tmp_path)
    assert "cannot be written" in mistake("-m", "seed=0,1", "hydra.sweep.dir=file/x", cwd=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="the device is there")
def test_a_device_that_is_not_there(tmp_path):
    assert "trainer.accelerator=cpu" in mistake("trainer.accelerator=gpu", *FAST, cwd=tmp_path)


def test_processes_without_a_common_folder(tmp_path):
    together = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert "hydra.run.dir=FOLDER" in mistake(cwd=tmp_path, **together)
    assert "one process with -m" in mistake("-m", "seed=0,1", cwd=tmp_path, **together)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "expected one run folder, got none"),
        ("a b", "expected one run folder, got a and b"),
        ("nothing", "nothing is no run: looked for config.yaml"),
        ("-m nothing", "no flags but"),
        ("nothing data=mnst", "nothing is no run"),
    ],
)
def test_evaluation(tmp_path, words, says):
    assert says in mistake(*words.split(), cwd=tmp_path, script="evaluate.py")


def test_what_a_run_cannot_be_resumed_or_evaluated_with(tmp_path):
    assert command("train.py", "model=linear", *FAST, cwd=tmp_path).returncode == 0
    run = run_folder(tmp_path)
    for path in trained(tmp_path):
        path.rename(path.with_suffix(".kept"))
    assert "seed=1: cannot be changed on resume" in mistake(f"resume={run}", "seed=1", cwd=tmp_path)
    assert "did you mean max_epochs=3?" in mistake(f"resume={run}", "max_epoch=3", cwd=tmp_path)
    assert "cannot be changed on evaluation" in mistake(str(run), "optimizer.lr=1", cwd=tmp_path, script="evaluate.py")
    assert "did you mean data=mnist?" in mistake(str(run), "data=mnst", cwd=tmp_path, script="evaluate.py")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("torch.optim.SGD", "os.system"))
    assert "which no option of optimizer names" in mistake(f"resume={run}", cwd=tmp_path)


def test_a_failure_that_is_not_the_users_keeps_its_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sklearn.datasets\n\ndef load_digits():\n    raise ZeroDivisionError('inside')\n\nsklearn.datasets.load_digits = load_digits\n"
    )
    done = command("train.py", *FAST, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "Traceback" in done.stderr and "ZeroDivisionError: inside" in done.stderr
