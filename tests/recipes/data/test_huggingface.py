"""Columns of Hugging Face's data sets are what was written, whatever kind of file they are read from, in the splits they came in."""

import json
import shlex
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from plugins.base import RecipeError
from recipes.data.huggingface import HuggingFaceData
from recipes.data.loaders import StepLoader
from tests.command import ROOT, command

datasets = pytest.importorskip("datasets")
NAMES = ["Balinese", "Early Aramaic", "Greek", "Korean", "Latin"]
with np.load(ROOT / "tests" / "data" / "omniglot.npz") as file:
    OMNIGLOT = {name: file[name] for name in file}


@pytest.fixture(autouse=True)
def offline(tmp_path_factory, monkeypatch):
    """No network, and nothing left outside of the test's folder; `datasets` has read its variables when it was imported."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


def characters(chosen, **further):
    """Some of the handwritten characters as a data set with images."""
    features = {"image": datasets.Image(), "alphabet": datasets.ClassLabel(names=NAMES), "drawer": datasets.Value("int64")}
    columns = {
        "image": [Image.fromarray(image) for image in OMNIGLOT["x"][chosen]],
        "alphabet": OMNIGLOT["alphabet"][chosen],
        "drawer": OMNIGLOT["drawer"][chosen],
    }
    return datasets.Dataset.from_dict({**columns, **further}, features=datasets.Features(features) if not further else None)


def table(rows=60, **columns):
    """A table with columns of one's own beside the defaults."""
    defaults = {"a": np.random.rand(rows), "b": np.arange(rows), "y": np.arange(rows) % 2}
    return datasets.Dataset.from_dict({**defaults, **columns})


def data_of(path, **arguments):
    data = HuggingFaceData(path if not hasattr(path, "parts") else str(path), **arguments)
    data.setup()
    return data


def whole(source):
    return source.fetch(torch.arange(len(source)))


def rows_of(data, task=""):
    """All samples, as bytes with their label."""
    found = []
    for split in data.splits.values():
        x, targets = whole(split)
        found += [(image.numpy().tobytes(), label.item()) for image, label in zip(x, targets[task], strict=True)]
    return sorted(found)


def test_images_in_parquet_are_those_that_were_written(tmp_path):
    chosen = np.arange(0, 1500, 5)
    characters(chosen).to_parquet(tmp_path / "characters.parquet")
    data = data_of(tmp_path, input="image", target="alphabet")
    assert data.shape == (1, 28, 28) and data.tasks[0].names == tuple(NAMES) and data.tasks[0].outputs == 5
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 216, "val": 24, "test": 60}
    images = zip(OMNIGLOT["x"][chosen], OMNIGLOT["alphabet"][chosen], strict=True)
    assert rows_of(data) == sorted((image.tobytes(), label) for image, label in images)
    assert data.splits["train"].workers == 2 and "300 rows are read as they are needed" in data.splits["train"].remark
    one = data_of(tmp_path / "characters.parquet", input="image", target="alphabet", size=[14, 7], channels=3)
    assert one.shape == (3, 14, 7) and one.content != data.content


def test_two_targets_are_two_tasks(tmp_path):
    characters(np.arange(0, 1500, 7)).save_to_disk(tmp_path / "saved")
    data = data_of(tmp_path / "saved", input="image", target=["alphabet", "drawer"])
    assert [(task.name, task.outputs, len(task.names)) for task in data.tasks] == [("alphabet", 5, 5), ("drawer", 20, 0)]


def test_workers_and_files_change_nothing(tmp_path):
    """Images in the cells of a table, or in files beside it: the same samples in the same order, whoever reads them."""
    chosen = np.arange(0, 1500, 15)
    characters(chosen).to_parquet(tmp_path / "all.parquet")
    for number, (image, label) in enumerate(zip(OMNIGLOT["x"][chosen], OMNIGLOT["alphabet"][chosen], strict=True)):
        folder = tmp_path / "images" / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:04}.png")
    plain, ahead = (data_of(tmp_path / "all.parquet", input="image", target="alphabet", workers=n) for n in (0, 2))
    assert plain.fingerprint == ahead.fingerprint
    splits = [data.splits["train"] + data.splits["val"] for data in (plain, ahead)]
    pairs = list(zip(*(StepLoader(split, 8, 0) for split in splits), strict=True))
    assert len(pairs) == 10
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1][""], b[1][""]) for a, b in pairs)
    folder = data_of(tmp_path / "images", input="image", target="label")
    assert rows_of(folder) == rows_of(plain) and folder.tasks[0].names == tuple(NAMES)


@pytest.mark.parametrize("form", ["csv", "json", "parquet", "arrow"])
def test_columns_of_numbers_are_features(tmp_path, form):
    given = table(word=["no", "yes"] * 30, y=np.arange(60) % 3)
    if form == "arrow":
        given.save_to_disk(tmp_path / "numbers.arrow")
    else:
        getattr(given, f"to_{form}")(tmp_path / f"numbers.{form}")
    data = data_of(tmp_path / f"numbers.{form}", input=["b", "a"], target="y")
    assert data.shape == (2,) and data.tasks[0].outputs == 3
    x, targets = whole(data.splits["train"])
    assert x.dtype == torch.float32 and torch.equal(x[:, 0].long() % 3, targets[""])
    torch.testing.assert_close(
        x[:, 1].double(), torch.tensor(given["a"][:], dtype=torch.float64)[x[:, 0].long()], rtol=0, atol=1e-6
    )
    words = data_of(tmp_path / f"numbers.{form}", input="a", target=["word"])
    assert words.shape == (1,) and words.tasks[0].names == ("no", "yes")
    assert data_of(tmp_path / f"numbers.{form}", input="b", target="a").tasks[0].kind == "regression"


def test_arrays_of_one_size_and_inputs_by_name():
    images, vectors = np.random.randint(0, 256, (40, 6, 5), dtype=np.uint8), np.random.randn(40, 7)
    tokens, mask = np.random.randint(0, 9, (40, 4)), np.random.rand(40, 4) > 0.3
    tokens[3, 1] = 11
    given = datasets.Dataset.from_dict(
        {"image": images, "vector": vectors, "tokens": tokens, "mask": mask, "y": np.arange(40) % 2, "point": vectors[:, :2]},
        features=datasets.Features(
            {
                "image": datasets.Array2D((6, 5), "uint8"),
                "vector": datasets.List(datasets.Value("float64"), length=7),
                "tokens": datasets.List(datasets.Value("int32")),
                "mask": datasets.List(datasets.Value("bool")),
                "y": datasets.Value("int8"),
                "point": datasets.List(datasets.Value("float64")),
            }
        ),
    )
    source, _ = HuggingFaceData(given, input="image", target="y").load()
    x, targets = source.fetch(torch.tensor([5, 0, 5]))
    assert x.dtype == torch.uint8 and np.array_equal(x[:, 0].numpy(), images[[5, 0, 5]]) and targets[""].tolist() == [1, 0, 1]
    source, _ = HuggingFaceData(given, input="vector", target="point").load()
    np.testing.assert_array_equal(source.between(10, 30)[0].numpy(), vectors[10:30].astype(np.float32))
    assert source.labels[""].shape == (40, 2)
    named = data_of(given, input=["tokens", "mask"], target="y")
    assert named.shape["tokens"].largest == 11 and named.shape["tokens"].shape == (4,) and named.shape["mask"].kind == "bool"
    rows = {
        (tuple(a.tolist()), tuple(b.tolist()))
        for split in named.splits.values()
        for a, b in zip(*whole(split)[0].values(), strict=True)
    }
    assert rows == {(tuple(a.tolist()), tuple(b.tolist())) for a, b in zip(tokens, mask, strict=True)}
    with_image = data_of(given, input=["image", "vector"], target="y")
    assert with_image.shape["image"].shape == (1, 6, 5) and with_image.shape["vector"].kind == "float32"


def test_columns_that_are_called_by_numbers():
    given = table(**{"0": np.random.rand(60), "1": np.arange(60) % 3})
    data, named = (data_of(given, input=input, target=target) for input, target in ((0, 1), ("0", "1")))
    assert data.fingerprint == named.fingerprint and data.shape == (1,) and data.tasks[0].outputs == 3
    assert data_of(given, input=[0, "a"], target=[1, "y"]).shape == (2,)


@pytest.mark.parametrize("length", [5, 300])
@pytest.mark.parametrize("by_name", [False, True])
def test_no_rows_have_the_shape_of_the_others(by_name, length):
    data = data_of(table(c=[[float(row)] * length for row in range(60)]), input=["c"] if by_name else "c", target="y")
    assert bool(data.splits["val"].in_place) == (length > 5)
    x, targets = data.splits["val"].between(2, 2)  # of a process that has no sample of an evaluation's batch
    expected = data.splits["val"].between(0, 1)[0]
    for found, one in zip(*(x.values() if by_name else [x] for x in (x, expected)), strict=True):
        assert found.shape == (0, length) and found.dtype == one.dtype
    assert targets[""].shape == (0,)


def test_splits_of_the_data_set_are_used(tmp_path):
    parts = {"train": table(50), "validation": table(8, b=np.arange(100, 108)), "test": table(9, b=np.arange(200, 209))}
    for name, part in parts.items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    data = data_of(tmp_path, input="b", target="y")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 50, "val": 8, "test": 9}
    assert sorted(whole(data.splits["val"])[0][:, 0].tolist()) == list(range(100, 108))
    assert whole(data.splits["test"])[0][:, 0].tolist() == list(range(200, 209))
    everything = data.splits["train"] + data.splits["val"]
    assert len(everything) == 58
    few = data_of(tmp_path, input="b", target="y", train_samples=10)
    assert [len(few.splits[name]) for name in ("train", "val")] == [10, 8]
    (tmp_path / "test.parquet").unlink()
    assert {name: len(split) for name, split in data_of(tmp_path, input="b", target="y").splits.items()} == {
        "train": 45,
        "val": 5,
        "test": 8,
    }
    with pytest.raises(RecipeError, match="data.folds: the data set has a test split of its own"):
        data_of(datasets.DatasetDict(parts), input="b", target="y", folds=3)
    left = data_of(datasets.DatasetDict({**parts, "unsupervised": table(5)}), input="b", target="y")
    assert "the split unsupervised of it left out" in left.splits["train"].remark


def test_inputs_alone_need_no_targets(tmp_path):
    given = table()
    given.remove_columns("y").to_csv(tmp_path / "new.csv")
    source = HuggingFaceData(str(tmp_path / "new.csv"), input=["a", "b"], target="y").load_inputs()
    assert len(source) == 60 and not source.labels
    np.testing.assert_allclose(source.between(0, 60)[0][:, 0].numpy(), given["a"], rtol=1e-6)


def test_what_a_target_is_can_be_said():
    given = table(y=np.arange(60) % 3, whole=(np.arange(60) % 3).astype(float))
    task = data_of(given, input="b", target="y", task="regression").tasks[0]
    assert (task.kind, task.outputs) == ("regression", 1)
    data = data_of(given, input="b", target="whole", task="classification")
    assert data.tasks[0].outputs == 3 and not data.splits["train"].labels[""].is_floating_point()
    with pytest.raises(RecipeError, match="holds floats, but none other than 0 to 2"):
        data_of(given, input="b", target="whole")
    with pytest.raises(RecipeError, match="column a holds numbers with fractions, which are no classes"):
        data_of(given, input="b", target="a", task="classification")
    with pytest.raises(RecipeError, match="column y holds 20 values that are NaN or infinite"):
        data_of(table(y=[0.0, 1.0, np.nan] * 20), input="b", target="y", task="classification")
    with pytest.raises(RecipeError, match="column y has no label .None. in 20 of 60 places, such as number 2 "):
        data_of(table(y=["no", "yes", "None"] * 20), input="b", target="y")
    with pytest.raises(RecipeError, match="column word holds text, and data.task=regression takes numbers"):
        data_of(table(word=["no", "yes"] * 30), input="b", target="word", task="regression")


LISTS = [[0.5] * (3 + (row == 7)) for row in range(60)]
HOLES = [None if row == 11 else 0.5 for row in range(60)]


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        (
            table,
            {"input": None},
            r"data.input must name a column of the data set, such as .* it has a \(float64\), b \(int64\)",
        ),
        (table, {"target": None}, "data.target must name a column"),
        (table, {"input": "c"}, r"data.input: the data set has no column c; it has a \(float64\)"),
        (table, {"input": ["a", "a"]}, "data.input must be names of which each is given once"),
        (table, {"target": "a"}, "data.target must be columns that are no inputs"),
        (table, {"task": "ranking"}, "data.task must be one of classification, regression"),
        (table, {"size": 3}, "data.size and data.channels are of images, and a holds none"),
        (lambda: table(a=LISTS), {}, "column a: lists differ in length, 3 in row 0 and 4 in row 7: pad them"),
        (lambda: table(a=HOLES), {}, "column a, row 11: the cell is empty"),
        (lambda: table(a=[[HOLES[row]] for row in range(60)]), {}, "column a, row 11: the cell is empty"),
        (lambda: table(y=[0] * 59 + [None]), {}, "column y, row 59: the cell is empty"),
        (lambda: table(a=[np.inf] * 60), {}, "a holds 60 values that are NaN or infinite"),
        (lambda: table(a=["x"] * 60), {}, "column a holds text, expected numbers"),
        (lambda: table(a=[{"b": 1}] * 60), {}, "column a holds struct<b: int64>, expected numbers"),
        (lambda: table(y=[-1] * 60), {}, "column y must hold class numbers"),
        (lambda: table().to_iterable_dataset(), {}, "streaming data set, whose rows cannot be reached by their number"),
        (lambda: datasets.DatasetDict({"left": table(), "right": table()}), {}, "has the splits left, right: expected train"),
        (
            lambda: datasets.DatasetDict({"train": table(), "val": table(), "validation": table()}),
            {},
            "two splits for one purpose",
        ),
        (
            lambda: datasets.DatasetDict({"train": table(), "test": table().remove_columns("y")}),
            {},
            "the data set: the split test has no column y, which train has: add it, or leave that split out",
        ),
        (
            lambda: datasets.DatasetDict({"train": table(), "valid": table().remove_columns(["a", "y"])}),
            {},
            "the split valid has no column a, y, which train has",
        ),
        (lambda: 3, {}, "data.path must be a folder, a file, a name on the hub, a Dataset or a DatasetDict; got a int"),
    ],
)
def test_what_cannot_be_right_is_one_line(given, arguments, message):
    with pytest.raises(RecipeError, match=message) as error:
        data_of(given(), **{"input": "a", "target": "y", **arguments})
    assert "\n" not in str(error.value)


def test_bad_images_are_one_line():
    given = characters(np.arange(0, 1500, 50))
    cells = [{"bytes": b"no image", "path": None}, None]
    for cell, message in zip(cells, ("row 30 cannot be read as an image", "row 30: the cell is empty"), strict=True):
        more = datasets.Dataset.from_dict({"image": [cell], "alphabet": [0], "drawer": [0]}, features=given.features)
        with pytest.raises(RecipeError, match=f"column image, {message}"):
            data_of(datasets.concatenate_datasets([given, more]), input="image", target="alphabet")
    other = given.map(lambda row, number: {"image": row["image"].resize((9 if number == 4 else 28, 28))}, with_indices=True)
    with pytest.raises(
        RecipeError, match="images differ in size: .*row 0 has 28 × 28 pixels, .*row 4 28 × 9; type data.size=N"
    ):
        data_of(other, input="image", target="alphabet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.parquet", None, "no folder or file .*none.parquet: data.path must be one, or a name on the hub, OWNER/NAME"),
        ("bad.parquet", b"hello", "data.path=.*bad.parquet cannot be read: "),
        ("bad.jsonl", b'{"a": 1\n', "data.path=.*bad.jsonl cannot be read: "),
        ("bad.txt", b"hello", "bad.txt is none of the files that are read here: .parquet, .csv"),
        ("folder", {}, "data.path=.*folder cannot be read: .*doesn't contain any data files"),
        ("folder", {"dataset_dict.json": json.dumps({"splits": ["train"]})}, "data.path=.*folder cannot be read: "),
    ],
)
def test_files_that_are_no_data_are_one_line(tmp_path, name, content, message):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        (tmp_path / name).mkdir()
        for file, text in content.items():
            (tmp_path / name / file).write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        data_of(tmp_path / name, input="a", target="y")
    assert "\n" not in str(error.value)


def test_without_a_network_a_name_is_one_line(capfd):
    with pytest.raises(
        RecipeError, match="data.path=owner/name is no folder or file here, and the hub does not answer"
    ) as error:
        data_of("owner/name", input="a", target="y")
    assert "\n" not in str(error.value) and not any(capfd.readouterr())


def test_parts_of_a_data_set_have_names(tmp_path):
    table().to_parquet(tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match="data.config: .*'mine' not found"):
        data_of(tmp_path, config="mine", input="a", target="y")


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RecipeError, match=r'needs a further package: pip install -e "\.\[datasets\]"'):
        data_of("folder", input="a", target="y")


def test_a_training_and_its_predictions(tmp_path):
    chosen = np.arange(0, 1500, 10)
    characters(chosen).to_parquet(tmp_path / "characters.parquet")
    line = (
        "data=huggingface data.path=characters.parquet data.input=image data.target=alphabet model=linear max_steps=4 logger=[]"
    )
    words = [*shlex.split(line), "trainer.accelerator=cpu", "hydra.run.dir=run"]
    done = command("train.py", *words, cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    assert "150 rows are read as they are needed, by 2 processes" in done.stdout and "Generating" not in done.stderr
    done = command("predict.py", "run", "output=found.csv", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 31 and "Greek" in (tmp_path / "found.csv").read_text()


def test_a_table_without_rows_is_one_line(tmp_path):
    table(0).to_parquet(tmp_path / "none.parquet")
    data = HuggingFaceData(str(tmp_path / "none.parquet"), input=["a", "b"], target="y")
    for load in (data.load_inputs, data.load):
        with pytest.raises(RecipeError) as refused:
            load()
        assert "\n" not in str(refused.value)
