import pickle
import random

import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from recipes.data.npz import NpzData


def data_of(path, setup=True, **arguments):
    data = NpzData(str(path), **arguments)
    if setup:
        data.setup()
    return data


@pytest.fixture
def saved(tmp_path):
    """Writes arrays to a file."""

    def save(**arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return tmp_path / "own.npz"

    return save


def test_features_of_one_file_are_split(saved):
    x, y = np.random.randn(50, 3), np.arange(50) % 2
    data = data_of(saved(x=x, y=y))
    assert data.shape == (3,) and [task.outputs for task in data.tasks] == [2]
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 36, "val": 4, "test": 10}
    for split in data.splits.values():
        rows = [np.flatnonzero((np.abs(x - row.numpy()) < 1e-6).all(1))[0] for row in split.x]
        assert split.targets[""].tolist() == y[rows].tolist()


def test_splits_of_the_file_are_used(saved):
    x, images = np.random.rand(20, 5, 4), np.random.rand(6, 5, 4)
    data = data_of(saved(x_train=x, y_train=np.arange(20) % 2, x_test=images, y_test=np.arange(6) % 2))
    np.testing.assert_allclose(data.splits["test"].x.numpy()[:, 0], images, rtol=1e-6)
    assert len(data.splits["train"]) + len(data.splits["val"]) == 20
    alone = data_of(saved(x_train=x, y_train=np.arange(20) % 2))
    assert sum(len(split) for split in alone.splits.values()) == 20


def test_other_names_and_several_targets(saved):
    path = saved(
        signal=np.random.randn(60, 4), digit=np.arange(60) % 3, speaker=np.array(["b", "a"] * 30), size=np.random.rand(60)
    )
    data = data_of(path, input="signal", target=["digit", "speaker", "size"])
    assert [(task.name, task.kind, task.outputs) for task in data.tasks] == [
        ("digit", "classification", 3),
        ("speaker", "classification", 2),
        ("size", "regression", 1),
    ]
    one = data_of(path, input="signal", target=["digit"])
    assert [task.name for task in one.tasks] == [""]


def test_names_of_classes_mean_the_same_in_both_splits(saved):
    """The test split lacks a class that comes first: its names must not be counted anew."""
    train, test = np.array(["ant", "bee", "cat"] * 20), np.array(["cat", "bee", "cat"])
    data = data_of(saved(x_train=np.zeros((60, 2)), y_train=train, x_test=np.zeros((3, 2)), y_test=test))
    assert data.splits["test"].targets[""].tolist() == [2, 1, 2]
    with pytest.raises(RecipeError, match="class 3 is in the test split"):
        data_of(saved(x_train=np.zeros((60, 2)), y_train=train, x_test=np.zeros((1, 2)), y_test=np.array(["dog"])))


def test_text_of_bytes_is_text(saved):
    data = data_of(saved(x=np.zeros((60, 2)), y=np.array(["ant", "bee", "größe"] * 20).astype("U").view("U5")))
    other = data_of(saved(x=np.zeros((60, 2)), y=np.array([word.encode() for word in ["ant", "bee", "größe"] * 20])))
    assert data.class_names == other.class_names == {"": ("ant", "bee", "größe")}
    assert torch.equal(data.splits["train"].targets[""], other.splits["train"].targets[""])


def test_bytes_that_are_no_utf_8_are_classes_of_their_own(saved):
    names = [word.encode("latin-1") for word in ["Bär", "Bör", "Uhu"] * 20]
    data = data_of(saved(x=np.zeros((60, 2)), y=np.array(names)))
    assert data.class_names == {"": ("B\\xe4r", "B\\xf6r", "Uhu")} and data.tasks[0].outputs == 3


@pytest.mark.parametrize(
    ("given", "shape"),
    [((9, 9, 4), (4, 9, 9)), ((9, 6, 2), (2, 9, 6)), ((4, 9, 9), (4, 9, 9)), ((13, 9, 9), (13, 9, 9)), ((8, 2, 2), (8, 2, 2))],
)
def test_channels_are_first_or_last(saved, given, shape):
    """Two or four of them too, as of images that are transparent."""
    x = np.random.default_rng(0).integers(0, 255, (20, *given), dtype=np.uint8)
    data = data_of(saved(x=x, y=Y))
    assert data.shape == shape
    numbers = data.splits["test"].x.numpy()
    expected = x if given == shape else x.transpose(0, 3, 1, 2)
    assert all((row == expected).all((1, 2, 3)).any() for row in numbers)


@pytest.mark.parametrize("kind", [">f4", ">f8", np.longdouble, np.float16])
def test_images_of_any_kind_of_floats(saved, kind):
    x = np.random.default_rng(0).random((20, 5, 5))
    found, expected = (data_of(saved(x=each, y=Y)).splits["test"].x for each in (x.astype(kind), x))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_a_split_without_a_known_label(saved):
    """Of a test whose labels the loss leaves out nothing is known; its samples are there."""
    data = NpzData(saved(x_train=X, y_train=Y, x_test=X, y_test=np.full(20, -100)))
    data.ignored = -100
    data.setup()
    assert data.tasks[0].outputs == 2


X, Y = np.random.rand(20, 3), np.arange(20) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "has no array y: it has x"),
        ({"data": X}, "has no array x, y: it has data"),
        ({}, "must be an npz file or a folder of npy files, and .* holds no array"),
        ({"x": X, "y": Y[:7]}, "arrays differ in length: x has 20, y has 7"),
        ({"x": np.where(X > 0.5, np.nan, X), "y": Y}, "x holds .* values that are NaN or infinite: clean the data first"),
        ({"x": np.full((20, 4, 4), np.inf), "y": Y}, "NaN or infinite"),
        ({"x": X, "y": np.where(Y, np.nan, 1.0)}, "y holds .* values that are NaN"),
        ({"x": X, "y": Y - 1}, "they reach from -1 to 0, out of range"),
        ({"x": X, "y": Y * 10**7}, "out of range"),
        ({"x": X[:, :0], "y": Y}, "x must be at least one sample"),
        ({"x": X[:0], "y": Y[:0]}, "x must be at least one sample"),
        ({"x": X[:1], "y": Y[:1]}, "does not split 1 samples"),
        ({"x": X[:, 0], "y": Y}, "x must be features .* or images"),
        ({"x": np.array(5.0), "y": Y}, "x must be features"),
        ({"x": np.array(["a"] * 20), "y": Y}, "x must be numbers"),
        ({"x": X, "y": np.stack([Y, Y], 1).astype(float)[:, None]}, "y must have one value a sample"),
        ({"x": np.random.rand(20, 4, 4) * 255, "y": Y}, "give bytes, or numbers between 0 and 1"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y}, "differ in shape"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "class 2 is in the test split"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y[:3]}, "x_test has 20, y_test has 3"),
        (
            {"x_train": X, "y_train": np.array(["cat", "dog"])[Y], "x_test": X, "y_test": Y},
            "y holds text in one split and numbers",
        ),
        (
            {"x_train": X, "y_train": Y, "x_test": X, "y_test": np.array(["cat", "dog"])[Y]},
            "y holds text in one split and numbers",
        ),
        ({"x": X, "y": np.where(Y, 1e39, 1.0)}, "y holds 10 values that are NaN or infinite"),
        (
            {"x": X, "y": np.array(["a", "b", None], dtype=object)[np.arange(20) % 3].astype(str)},
            r"y has no label .None. in 6 of 20 places, such as number 2 .*: leave these .* or give a class that is called None another name",
        ),
        ({"x": X, "y": np.where(Y, "a", " nan")}, "y has no label .nan. in 10 of 20 places, such as number 0"),
        ({"x": X, "y": np.where(Y, "a", "<NA>").astype("S")}, "y has no label .<NA>. in 10 of 20 places"),
        (
            {"x": X, "y": np.where(Y, "a", " ")},
            "y has no label in 10 of 20 places, such as number 0 .from 0.: leave these samples out$",
        ),
        ({"x": X.astype(object), "y": Y}, "holds an array of Python objects, which are never unpickled"),
    ],
)
def test_broken_arrays_are_one_line(saved, arrays, message):
    path = saved(**arrays)
    with pytest.raises(RecipeError, match=message) as error:
        data_of(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"path": None}, "data.path must be the path of an npz file"), ({"path": "a.npz", "target": []}, "data.target must be")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(RecipeError, match=message):
        NpzData(**arguments)


def test_files_that_are_no_npz_are_one_line(tmp_path):
    with pytest.raises(RecipeError, match="no file .*none.npz: data.path must be"):
        data_of(tmp_path / "none.npz")
    np.save(tmp_path / "array.npy", X)
    contents = {"text.npz": b"hello", "empty.npz": b"", "zip.npz": b"PK\x03\x04", "array.npy": None}
    for name, content in contents.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(
            RecipeError, match=f"{name} (cannot be read as an npz file|is one array, and .* two): write .* with numpy.savez"
        ):
            data_of(tmp_path / name)
    with pytest.raises(RecipeError, match="has no array x, y: it has array"):
        data_of(tmp_path)


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_in_the_file_is_never_opened(tmp_path, saved):
    marker = tmp_path / "called"
    path = saved(x=np.array([Evil(marker)], dtype=object), y=Y)
    with pytest.raises(RecipeError, match="holds an array of Python objects, which are never unpickled"):
        data_of(path)
    path.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(RecipeError, match="write it with numpy.savez"):
        data_of(path)
    assert not marker.exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_are_read_whole_or_refused_in_one_line(tmp_path, save):
    """Bytes turned or cut off at random: never another exception, never other numbers."""
    path = tmp_path / "own.npz"
    save(path, x=X, y=Y)
    content, good = path.read_bytes(), data_of(path).splits["train"].x
    messages = []
    for _ in range(150):
        damaged = bytearray(content)
        if random.random() < 0.3:
            damaged = damaged[: random.randrange(len(damaged))]
        else:
            for _ in range(random.randint(1, 4)):
                damaged[random.randrange(len(damaged))] ^= random.randint(1, 255)
        path.write_bytes(damaged)
        try:
            assert torch.equal(data_of(path).splits["train"].x, good)
        except RecipeError as error:
            messages.append(str(error))
    assert messages and not any("\n" in message for message in messages)


def test_truth_values_say_which_labels_a_sample_has(saved):
    x, y = np.random.randn(50, 3), np.arange(150).reshape(50, 3) % 7 < 3
    data = data_of(saved(x=x, y=y))
    assert [(task.kind, task.outputs, task.shape) for task in data.tasks] == [("multilabel", 3, ())]
    for split in data.splits.values():
        rows = [np.flatnonzero((np.abs(x - row.numpy()) < 1e-6).all(1))[0] for row in split.x]
        assert split.targets[""].dtype == torch.bool and split.targets[""].tolist() == y[rows].tolist()
    for numbers in (y.astype(np.float32), y.astype(int)):
        same = data_of(saved(x=x, y=numbers), task="multilabel")
        assert same.tasks == data.tasks and same.fingerprint == data.fingerprint
    assert [task.kind for task in data_of(saved(x=x, y=y.astype(np.float32))).tasks] == ["regression"]
    assert [task.shape for task in data_of(saved(x=x, y=y.astype(int))).tasks] == [(3,)]
    assert [task.kind for task in data_of(saved(x=x, y=y[:, :1])).tasks] == ["classification"]


def test_refuses_what_says_no_labels(saved):
    x, y = np.random.randn(50, 3), np.arange(150).reshape(50, 3) % 7 < 3
    for wrong, message in (
        (y[:, 0], "a column for each of at least two labels"),
        (y[:, :1], "a column for each of at least two labels"),
        (y * 0.5, r"must hold 0 and 1 alone.*got 0.5"),
        (np.where(y, np.nan, 0.0), "must hold 0 and 1 alone.*got nan"),
        (y * 2, "must hold 0 and 1 alone.*got 2"),
        (y.astype(str), "a column for each of at least two labels"),
        (np.ones((50, 3), bool), "have the same labels: there is nothing to tell apart"),
    ):
        with pytest.raises(RecipeError, match=message):
            data_of(saved(x=x, y=wrong), task="multilabel")
    with pytest.raises(RecipeError, match="differ in kind: torch.bool and torch.int64"):
        data_of(saved(x_train=x, y_train=y, x_test=x, y_test=y.astype(int)))
    with pytest.raises(RecipeError, match="data.task must be one of multilabel, got .regression."):
        data_of(saved(x=x, y=y), task="regression")
