"""Samples that stay in files: none is lost or seen twice where a run goes on, and a process that reads them does not die unheard."""

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from recipes.data.fetching import one_ends
from recipes.data.huggingface import HuggingFaceData
from recipes.data.image_folder import ImageFolder
from recipes.data.loaders import StepLoader
from recipes.data.npz import NpzData
from recipes.engine.checkpoint import load_checkpoint
from tests.command import LIMIT, arguments, command, variables, wait_until

SAMPLES, BATCH = 150, 16
IMAGES = (load_digits().images[:SAMPLES] * 15.9).astype(np.uint8)
LABELS = load_digits().target[:SAMPLES]
assert len({image.tobytes() for image in IMAGES}) == SAMPLES


def npz(place):
    np.savez(place / "own.npz", x=IMAGES, y=LABELS)
    return "npz", {"path": str(place / "own.npz"), "in_memory": False, "workers": 2}


def folder_of_arrays(place):
    (place / "own").mkdir()
    np.save(place / "own" / "x.npy", IMAGES)
    np.save(place / "own" / "y.npy", LABELS)
    return "npz", {"path": str(place / "own"), "in_memory": False, "workers": 2}


def image_folder(place):
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        (place / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / "images" / str(label) / f"{number:03}.png")
    return "image_folder", {"path": str(place / "images"), "in_memory": False, "workers": 2}


def columns():
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "digit": datasets.ClassLabel(num_classes=10)})
    images = [Image.fromarray(image) for image in IMAGES]
    return datasets.Dataset.from_dict({"image": images, "digit": LABELS}, features=kinds)


def parquet(place):
    columns().to_parquet(place / "own.parquet")
    return "huggingface", {"path": str(place / "own.parquet"), "input": "image", "target": "digit", "workers": 2}


def arrow(place):
    columns().save_to_disk(place / "own")
    return "huggingface", {"path": str(place / "own"), "input": "image", "target": "digit", "workers": 2}


CLASSES = {"npz": NpzData, "image_folder": ImageFolder, "huggingface": HuggingFaceData}
PATIENCE = 120.0  # seconds until a run without its readers has ended
KINDS = pytest.mark.parametrize("kind", [npz, folder_of_arrays, image_folder, parquet, arrow])


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def words_of(kind, place):
    option, given = kind(place)
    words = [f"data={option}", *(f"data.{name}={value}" for name, value in given.items())]
    return [
        *words,
        f"data.batch_size={BATCH}",
        "model=linear",
        "logger=[]",
        "trainer.accelerator=cpu",
        "trainer.progress=false",
    ]


@KINDS
def test_an_epoch_that_goes_on_has_each_sample_once(tmp_path, kind):
    option, given = kind(tmp_path)
    data = CLASSES[option](**given)
    data.setup()
    train, steps = data.splits["train"], len(StepLoader(data.splits["train"], BATCH, 0))
    everything = {x.numpy().tobytes() for x in train.fetch(torch.arange(len(train)))[0]}
    for done in (0, 1, steps - 1, steps + 2):
        first, seen = done - done % steps, []
        before = iter(StepLoader(train, BATCH, 0, position=lambda first=first: first))
        seen = [next(before) for _ in range(done - first)]
        before.close()
        seen += StepLoader(train, BATCH, 0, position=lambda done=done: done)
        images = [x.numpy().tobytes() for batch, _ in seen for x in batch]
        assert len(images) == len({*images}) == steps * BATCH and {*images} <= everything


@pytest.mark.slow
@KINDS
def test_a_run_goes_on_in_the_middle_of_an_epoch_bit_for_bit(tmp_path, kind):
    words = [*words_of(kind, tmp_path), "+sampling=balanced" if kind is image_folder else "+regularizer=label_smoothing"]
    for folder, steps in (("whole", 11), ("part", 4)):  # of 6 in an epoch
        done = command("train.py", *words, f"max_steps={steps}", f"hydra.run.dir={folder}", cwd=tmp_path, forked=True)
        assert done.returncode == 0, done.stderr
    done = command("train.py", "resume=part", "max_steps=11", "data.workers=1", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    first, second = (load_checkpoint(tmp_path / folder / "checkpoints" / "last.ckpt") for folder in ("whole", "part"))
    assert first["recipe"]["metrics"] == second["recipe"]["metrics"]
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())


def children(number):
    """The processes that a process has started, by any of its threads."""
    return [int(child) for path in Path(f"/proc/{number}/task").glob("*/children") for child in path.read_text().split()]


def group(number):
    """The processes of a process group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of_group) == number and state != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.slow
@KINDS
def test_a_reader_that_is_killed_ends_the_run_in_a_line_and_leaves_no_process(tmp_path, kind):
    words = [*words_of(kind, tmp_path), "max_epochs=100000", "trainer.val_every_n_steps=1000000", "hydra.run.dir=run"]
    process = subprocess.Popen(
        arguments("train.py", *words), cwd=tmp_path, env=variables(), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    killed, end = 0, time.monotonic() + PATIENCE
    wait_until(lambda: (tmp_path / "run" / "config.yaml").exists() and children(process.pid), process)
    while process.poll() is None:  # a reader that has handed over its last batch of an epoch may well die
        assert time.monotonic() < end
        for reader in children(process.pid):
            try:
                os.kill(reader, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
        time.sleep(0.2)
    _, said = process.communicate(timeout=LIMIT)
    assert killed and process.returncode not in (0, -signal.SIGKILL)
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "a process that reads the data has ended" in lines[0], (process.returncode, said)
    assert "/recipes/" not in said  # no traceback of ours; of multiprocessing, a thread of a reader may leave one
    wait_until(lambda: not group(process.pid))


def test_whether_a_worker_ends():
    workers = [multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert not one_ends(workers) and not one_ends([])
    os.kill(workers[1].pid, signal.SIGKILL)
    assert one_ends(workers)
    for worker in workers:
        worker.kill()
        worker.join()
