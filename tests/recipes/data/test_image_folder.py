"""Images in files are those that PIL reads, in an order and a split that no number of workers changes."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import ImageFolder as TorchvisionFolder

from plugins.base import RecipeError
from recipes.data.image_folder import ImageFolder
from recipes.data.loaders import StepLoader
from recipes.engine.checkpoint import load_checkpoint
from tests.command import command

DIGITS = load_digits()


def write(folder, samples=60, classes=3, part="", form="png", convert="L"):
    """The first digits of some classes as files."""
    chosen = [n for n in range(len(DIGITS.target)) if DIGITS.target[n] < classes][:samples]
    for number in chosen:
        place = folder / part / f"digit {DIGITS.target[number]}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((DIGITS.images[number] * 15.9).astype(np.uint8)).convert(convert).save(place / f"{number:04}.{form}")
    return folder


def data_of(path, workers=0, **arguments):
    data = ImageFolder(str(path), workers=workers, **arguments)
    data.setup()
    return data


def whole(source):
    return source.between(0, len(source))


@pytest.mark.parametrize(
    ("form", "convert", "shape"), [("png", "L", (1, 8, 8)), ("jpg", "RGB", (3, 8, 8)), ("png", "P", (3, 8, 8))]
)
def test_files_are_what_torchvision_reads(tmp_path, form, convert, shape):
    data = data_of(write(tmp_path, form=form, convert=convert))
    assert data.shape == shape and data.tasks[0].names == ("digit 0", "digit 1", "digit 2")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 43, "val": 5, "test": 12}
    torchs = TorchvisionFolder(tmp_path)
    expected = {
        (np.asarray(image if shape[0] == 3 else image.convert("L")).reshape(8, 8, -1).transpose(2, 0, 1).tobytes(), label)
        for image, label in torchs
    }
    found = [
        (image.numpy().tobytes(), int(label))
        for split in data.splits.values()
        for image, label in zip(whole(split)[0], whole(split)[1][""], strict=True)
    ]
    assert set(found) == expected and len(found) == len(torchs)


def test_size_and_channels_are_as_asked(tmp_path):
    write(tmp_path)
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "digit 1" / "red.png")
    with pytest.raises(RecipeError, match=r"images differ in size: .* has 8 × 8 pixels, .*red.png 10 × 20; type data.size=N"):
        data_of(tmp_path)
    data = data_of(tmp_path, size=[5, 7])
    assert data.shape == (3, 5, 7)
    (red,) = [x for split in data.splits.values() for x in whole(split)[0] if x[0].float().mean() > 250]
    assert not red[1:].any()
    assert data_of(tmp_path, size=6, channels=1).shape == (1, 6, 6)


def test_test_images_have_a_folder(tmp_path):
    write(tmp_path, part="train")
    write(tmp_path, 12, part="test")
    data = data_of(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 54, "val": 6, "test": 12}
    (tmp_path / "test").rename(tmp_path / "val")
    assert data_of(tmp_path).content == data.content
    (tmp_path / "test").mkdir()
    with pytest.raises(RecipeError, match="has train, val and test, and validation is a share of train"):
        data_of(tmp_path)


def test_what_tells_data_apart(tmp_path):
    first = data_of(write(tmp_path / "a"))
    assert data_of(write(tmp_path / "elsewhere")).fingerprint == first.fingerprint
    moved = write(tmp_path / "b")
    (moved / "digit 0" / "0000.png").rename(moved / "digit 1" / "0000.png")
    other = write(tmp_path / "c")
    Image.new("L", (8, 8), 3).save(other / "digit 0" / "0000.png")
    found = [data_of(moved), data_of(other), data_of(tmp_path / "a", channels=3), data_of(tmp_path / "a", split_seed=1), first]
    assert len({data.fingerprint for data in found}) == 5
    assert len({data.content for data in found}) == 4  # which samples are in which split is another matter


def test_workers_change_nothing(tmp_path):
    write(tmp_path)
    plain, ahead = data_of(tmp_path), data_of(tmp_path, workers=2)
    assert plain.fingerprint == ahead.fingerprint
    pairs = list(zip(*(StepLoader(data.splits["train"] + data.splits["val"], 8, 0) for data in (plain, ahead)), strict=True))
    assert len(pairs) == 6
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1][""], b[1][""]) for a, b in pairs)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "digit 0" / "0000.png").write_bytes(b"no image"), "0000.png cannot be read as an image"),
        (
            lambda folder: Image.new("I;16", (8, 8)).save(folder / "digit 0" / "0000.png"),
            "pixels of the kind I;16, expected 8 bits",
        ),
        (lambda folder: (folder / "digit 7").mkdir(), "digit 7 has no images"),
        (lambda folder: write(folder, part="train") and write(folder, part="test", classes=4), "has the class digit 3, which"),
        (lambda folder: write(folder, part="train") and write(folder, part="further"), "has train and .*further: beside train"),
    ],
)
def test_bad_folders_are_one_line(tmp_path, spoil, message):
    if "train" not in message and "class" not in message:
        write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(RecipeError, match=message) as error:
        data_of(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_off_is_one_line(tmp_path, workers):
    write(tmp_path)
    file = tmp_path / "digit 0" / "0000.png"
    file.write_bytes(file.read_bytes()[:-30])
    source, _ = ImageFolder(str(tmp_path), workers=workers).load()
    with pytest.raises(RecipeError, match="0000.png cannot be read as an image") as error:
        list(StepLoader(source, "full", 0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": None}, "data.path must be a folder"),
        ({"path": "nowhere"}, "no folder .*nowhere: data.path must be"),
        ({"path": ".", "size": 0}, "data.size must be a number of pixels ≥ 1"),
        ({"path": ".", "size": [3]}, "data.size must be"),
        ({"path": ".", "channels": 2}, "data.channels must be 1, 3 or null"),
        ({"path": ".", "workers": -1}, "data.workers must be a whole number ≥ 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(RecipeError, match=message):
        data_of(**arguments)


@pytest.mark.slow
def test_a_run_with_workers_resumes_bit_for_bit(tmp_path):
    write(tmp_path / "images", 150)
    words = ["data=image_folder", f"data.path={tmp_path / 'images'}", "model=linear", "logger=[]", "trainer.accelerator=cpu"]
    words += ["data.batch_size=16", "+augmentation=horizontal_flip", "+sampling=balanced"]
    for folder, steps in (("whole", 11), ("part", 4)):
        done = command("train.py", *words, f"max_steps={steps}", f"hydra.run.dir={folder}", cwd=tmp_path, forked=True)
        assert done.returncode == 0 and "files are read as they are needed, by 2 processes" in done.stdout
    done = command("train.py", "resume=part", "max_steps=11", "data.workers=1", cwd=tmp_path, forked=True)
    assert done.returncode == 0
    first, second = (load_checkpoint(tmp_path / folder / "checkpoints" / "last.ckpt") for folder in ("whole", "part"))
    assert first["recipe"]["metrics"] == second["recipe"]["metrics"]
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())
