"""Images in files are those that PIL reads, in an order and a split that no number of workers changes."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import ImageFolder as TorchvisionFolder

from plugins.base import RecipeError
from recipes.data import memory
from recipes.data.image_files import Held, ImageFiles
from recipes.data.image_folder import ImageFolder
from recipes.data.loaders import StepLoader
from recipes.data.split import Split, fingerprint
from recipes.engine.checkpoint import load_checkpoint
from tests.command import ROOT, command

PICTURES = ROOT / "tests" / "data" / "pictures"
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
    plain, ahead = data_of(tmp_path), data_of(tmp_path, workers=2, in_memory=False)
    assert plain.fingerprint == ahead.fingerprint
    pairs = list(zip(*(StepLoader(data.splits["train"] + data.splits["val"], 8, 0) for data in (plain, ahead)), strict=True))
    assert len(pairs) == 6
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1][""], b[1][""]) for a, b in pairs)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "digit 0" / "0000.png").write_bytes(b"no image"), "0000.png cannot be read as an image"),
        (
            lambda folder: Image.new("F", (8, 8)).save(folder / "digit 0" / "0000.tif"),
            "pixels are of the kind F, expected 8 or 16 bits",
        ),
        (lambda folder: (folder / "digit 7").mkdir(), "digit 7 has no images"),
        (lambda folder: write(folder, part="train") and write(folder, part="test", classes=4), "has the class digit 3, which"),
        (
            lambda folder: write(folder, part="Train") and write(folder, part="Test"),
            "has Test and Train, which are names of splits and of no classes: call them train and test, or train and val, with",
        ),
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
def test_an_image_that_breaks_off_on_the_way(tmp_path, workers):
    write(tmp_path)
    source, _ = ImageFolder(str(tmp_path), workers=workers, in_memory=False).load()
    file = tmp_path / "digit 0" / "0000.png"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(RecipeError, match="0000.png cannot be read as an image") as error:
        list(StepLoader(source, "full", 0))
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------ broken files


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("in_memory", [True, False])
def test_broken_files_are_refused_or_left_out(tmp_path, workers, in_memory):
    write(tmp_path)
    whole = data_of(tmp_path, in_memory=in_memory)
    files = sorted((tmp_path / "digit 1").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-30])  # its head is right
    with pytest.raises(RecipeError, match=f"{files[0].name} cannot be read as an image .*; data.broken=skip leaves it out$"):
        data_of(tmp_path, workers, in_memory=in_memory)
    for spoilt in files[1:5]:
        spoilt.write_bytes(b"")
    with pytest.raises(RecipeError, match="4 files cannot be read as images: .*, .*, .* and 1 more: .*data.broken=skip"):
        data_of(tmp_path, workers, in_memory=in_memory)
    data = data_of(tmp_path, workers, in_memory=in_memory, broken="skip")
    remark = data.splits["train"].remark
    assert remark.startswith("5 broken files left out: ") and all(file.name in remark for file in files[:5])
    for spoilt in files[:5]:
        spoilt.unlink()
    without = data_of(tmp_path, in_memory=in_memory)
    assert data.fingerprint == without.fingerprint != whole.fingerprint and data.ids() == without.ids()
    assert all(torch.equal(whole_of(data, name)[0], whole_of(without, name)[0]) for name in data.splits)


def whole_of(data, name):
    return whole(data.splits[name])


def test_a_class_of_broken_files_alone(tmp_path):
    write(tmp_path)
    for file in (tmp_path / "digit 1").iterdir():
        file.write_bytes(b"")
    with pytest.raises(RecipeError, match="none of the images of the class digit 1 can be read"):
        data_of(tmp_path, broken="skip")


def test_what_is_no_image_is_counted_or_not_looked_at(tmp_path):
    content = data_of(write(tmp_path)).content
    for name in ("digit 0/a.heic", "digit 1/b.svg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    for name in (".DS_Store", "digit 0/._0000.png", "digit 0/Thumbs.db", "__MACOSX/c.png", "digit 1/.ipynb_checkpoints/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "digit 2" / "again").symlink_to(tmp_path / "digit 2")
    (tmp_path / "digit 2" / "loop").symlink_to(tmp_path / "digit 2" / "loop")
    found = data_of(tmp_path)
    assert found.content == content and "; 4 other files are left out, such as notes.txt" in found.splits["train"].remark


# ------------------------------------------------------------------ in memory or not


def test_in_memory_or_not_is_the_same(tmp_path):
    write(tmp_path)
    held, placed = (data_of(tmp_path, size=6, in_memory=where) for where in (True, False))
    assert isinstance(held.splits["train"], Split) and isinstance(placed.splits["train"], ImageFiles)
    assert "60 images (1, 6, 6) are in memory, 0.0 MiB" in held.splits["train"].remark
    assert held.fingerprint == placed.fingerprint and held.content == placed.content and held.shape == placed.shape
    for name in held.splits:
        for index in (torch.tensor([3, 0, 3]), slice(1, 4)):
            first, second = (whole(data.splits[name][index]) for data in (held, placed))
            assert torch.equal(first[0], second[0]) and torch.equal(first[1][""], second[1][""])
    both = [data.splits["train"] + data.splits["val"] for data in (held, placed)]
    assert fingerprint({"": both[0]}) == fingerprint({"": both[1]}) and torch.equal(*(whole(split)[0] for split in both))


def test_memory_decides_where_it_is_not_said(tmp_path, monkeypatch):
    write(tmp_path)
    for free, kind in ((3 * 60 * 64, Held), (3 * 60 * 64 - 1, ImageFiles)):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        assert type(data_of(tmp_path).splits["train"]) is kind
    with pytest.raises(RecipeError, match="data.batch_size=full takes all samples of .* type data.in_memory=true to try"):
        data_of(tmp_path, batch_size="full")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="an index on the device is one on a GPU")
def test_training_samples_are_measured_aside_on_a_device(tmp_path):
    write(tmp_path)
    held = data_of(tmp_path, in_memory=True).splits["train"]
    loaders = [StepLoader(held, 8, 0), StepLoader(held, 8, 0)]
    loaders[1].device = torch.device("cuda")
    list(loaders[1])
    found = [list(loader.evaluation_batches(20)) for loader in loaders]
    assert all(torch.equal(here[0], there[0].cpu()) for here, there in zip(*found, strict=True))


# ------------------------------------------------------------------ a table of labels


def test_a_table_names_images_and_labels(tmp_path):
    named = data_of(PICTURES, labels=f"{PICTURES}.csv", target="class", size=24)
    folders = data_of(PICTURES, size=24)
    assert named.content == folders.content and named.class_names == folders.class_names and named.ids() == folders.ids()
    numbers = data_of(PICTURES, labels=f"{PICTURES}.csv", target="brightness", size=24, aspect="pad")
    assert numbers.tasks[0].kind == "regression" and "target brightness: a regression" in numbers.splits["train"].remark
    both = data_of(PICTURES, labels=f"{PICTURES}.csv", target=["class", "brightness"], size=24)
    assert [task.kind for task in both.tasks] == ["classification", "regression"]
    mean = whole(numbers.splits["train"])[0].float().mean((1, 2, 3)) / 255
    assert torch.corrcoef(torch.stack([mean, whole(numbers.splits["train"])[1][""][:, 0]]))[0, 1] > 0.5


def test_several_labels_an_image(tmp_path):
    write(tmp_path)
    rows = [
        f"{file.relative_to(tmp_path)};{int('1' in file.parent.name)};{int('2' in file.parent.name)}"
        for file in tmp_path.rglob("*.png")
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["name;one;two", *rows]) + "\n")
    data = data_of(
        tmp_path, labels=tmp_path / "labels.csv", file="name", target=["one", "two"], task="multilabel", separator="semicolon"
    )
    assert data.tasks[0].kind == "multilabel" and data.tasks[0].names == ("one", "two")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label\nmissing.png,a\n", r"missing.png \(line 2 of .*labels.csv\) cannot be read as an image \(No such file"),
        ("file,label\n0000,a\n", r"0000 \(line 2 of .*No such file or directory; there is 0000.png\)"),
        (
            "file,label\n0000.png,a\n0000.png,b\n",
            r"column file, line 3 names 0000.png, as line 2 does: give each image one row",
        ),
        ("file,label\n,a\n", "column file, line 2: the cell is empty: it must name a file"),
        ("file,label\n0000.png,\n0001.png,b\n", "column label, the target, has no value in 1 of 2 rows"),
        ("file,label\n0000.png,a\n0001.png,a\n", "column label, the target: all 2 rows hold one class, a"),
        ("name,label\n0000.png,a\n", "data.file: .* has no column file: there is name, label"),
        ("file,class\n0000.png,a\n", "data.target: .* has no column label: there is file, class"),
        ("file;label\n0000.png;a\n", "type data.separator=semicolon"),
    ],
)
def test_tables_that_cannot_be_right(tmp_path, table, message):
    write(tmp_path)
    (tmp_path / "labels.csv").write_text(
        table + ("0010.png,b\n" if "all 2 rows" not in message and "1 of 2" not in message else "")
    )
    for file in (tmp_path / "digit 0").iterdir():
        file.rename(tmp_path / file.name)
    with pytest.raises(RecipeError, match=message) as error:
        data_of(tmp_path, labels=str(tmp_path / "labels.csv"))
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
        ({"path": ".", "broken": "leave"}, "data.broken must be one of error, skip"),
        ({"path": ".", "in_memory": "yes"}, "data.in_memory must be true, false or null"),
        ({"path": ".", "task": "regression"}, "data.task must be left out without data.labels"),
        ({"path": ".", "labels": "nothing.csv"}, "no file .*nothing.csv: data.labels must be a csv file"),
        ({"path": __file__}, "test_image_folder.py is a file: data.path must be a folder"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(RecipeError, match=message):
        data_of(**arguments)


def test_real_pictures_train_to_one_result_wherever_they_are(tmp_path):
    words = [
        "data=image_folder",
        f"data.path={PICTURES}",
        "data.size=24",
        "data.aspect=crop",
        "data.batch_size=8",
        "max_steps=8",
    ]
    words += ["model=cnn", "logger=[]", "trainer.accelerator=cpu", "seed=1", "optimizer=adam", "optimizer.lr=0.003"]
    found = {}
    for folder, further in (
        ("held", []),
        ("placed", ["data.in_memory=false"]),
        ("alone", ["data.in_memory=false", "data.workers=0"]),
    ):
        done = command("train.py", *words, *further, f"hydra.run.dir={folder}", cwd=tmp_path, forked=True)
        told = "42 images (3, 24, 24) are in memory" if folder == "held" else "42 files are read as they are needed, by "
        assert done.returncode == 0 and told in done.stdout and "3 classes" in done.stdout
        found[folder] = load_checkpoint(tmp_path / folder / "checkpoints" / "last.ckpt")
        assert done.stdout.count("data: ") == 1
    first = found.pop("held")
    assert first["recipe"]["metrics"]["val/acc"] >= 0.75  # of three classes
    for other in found.values():
        assert other["recipe"]["metrics"] == first["recipe"]["metrics"] and other["recipe"]["data"] == first["recipe"]["data"]
        assert all(torch.equal(value, other["state_dict"][name]) for name, value in first["state_dict"].items())
    done = command("predict.py", "held", f"data.path={PICTURES / 'flower'}", "output=found.csv", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and (tmp_path / "found.csv").read_text().count("flower") >= 8


@pytest.mark.slow
def test_a_run_with_workers_resumes_bit_for_bit(tmp_path):
    write(tmp_path / "images", 150)
    words = ["data=image_folder", f"data.path={tmp_path / 'images'}", "model=linear", "logger=[]", "trainer.accelerator=cpu"]
    words += ["data.batch_size=16", "data.in_memory=false", "+augmentation=horizontal_flip", "+sampling=balanced"]
    for folder, steps in (("whole", 11), ("part", 4)):
        done = command("train.py", *words, f"max_steps={steps}", f"hydra.run.dir={folder}", cwd=tmp_path, forked=True)
        assert done.returncode == 0 and "files are read as they are needed, by 2 processes" in done.stdout
    done = command("train.py", "resume=part", "max_steps=11", "data.workers=1", cwd=tmp_path, forked=True)
    assert done.returncode == 0
    first, second = (load_checkpoint(tmp_path / folder / "checkpoints" / "last.ckpt") for folder in ("whole", "part"))
    assert first["recipe"]["metrics"] == second["recipe"]["metrics"]
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())
