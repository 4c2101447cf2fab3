"""Arrays as people bring them: each trains to finite numbers, or is refused in one line before the first step."""

import math

import numpy as np
import pytest

from plugins.errors import RecipeError

SAMPLES = 60
RANDOM = np.random.default_rng(0)


def x(features=6):
    return RANDOM.normal(size=(SAMPLES, features)).astype(np.float32)


def y(classes=3):
    return np.arange(SAMPLES) % classes


def images(*shape, dtype=np.uint8):
    return RANDOM.integers(0, 256, size=(SAMPLES, *shape)).astype(dtype)


def rare():
    labels = y()
    labels[0] = 3
    return labels


TRAIN = {
    "features": {"x": x(), "y": y()},
    "one feature": {"x": x(1), "y": y()},
    "more features than samples": {"x": x(300), "y": y()},
    "a constant feature": {"x": np.concatenate([x(), np.full((SAMPLES, 1), 7, np.float32)], 1), "y": y()},
    "all features constant": {"x": np.ones((SAMPLES, 4), np.float32), "y": y()},
    "large values": {"x": x() * 1e12, "y": y()},
    "small values": {"x": x() * 1e-12, "y": y()},
    "whole numbers": {"x": RANDOM.integers(-5, 5, size=(SAMPLES, 6)), "y": y()},
    "truth values": {"x": RANDOM.random((SAMPLES, 6)) > 0.5, "y": y()},
    "half precision": {"x": x().astype(np.float16), "y": y()},
    "double precision": {"x": x().astype(np.float64), "y": y()},
    "another byte order": {"x": x().astype(">f4"), "y": y().astype(">i8")},
    "column major": {"x": np.asfortranarray(x()), "y": y()},
    "every other row": {"x": np.repeat(x(), 2, 0)[::2], "y": y()},
    "bytes": {"x": images(8, 8), "y": y()},
    "colours last": {"x": images(8, 8, 3), "y": y()},
    "colours first": {"x": images(3, 8, 8), "y": y()},
    "one pixel": {"x": images(1, 1), "y": y()},
    "long images": {"x": images(2, 40), "y": y()},
    "images of floats": {"x": RANDOM.random((SAMPLES, 8, 8)), "y": y()},
    "labels as bytes": {"x": x(), "y": y().astype(np.uint8)},
    "labels as truth values": {"x": x(), "y": y(2).astype(bool)},
    "labels in a column": {"x": x(), "y": y()[:, None]},
    "labels as text": {"x": x(), "y": np.array(["cat", "dog", "größe"])[y()]},
    "labels that leave one out": {"x": x(), "y": y() * 2},
    "a class of one sample": {"x": x(), "y": rare()},
    "as many classes as fit": {"x": x(), "y": y(30)},
    "numbers": {"x": x(), "y": RANDOM.normal(size=SAMPLES)},
    "numbers in columns": {"x": x(), "y": RANDOM.normal(size=(SAMPLES, 3))},
    "the same samples again": {"x": np.tile(x()[:6], (10, 1)), "y": y()},
    "training and test": {"x_train": x(), "y_train": y(), "x_test": x()[:20], "y_test": y()[:20]},
}
REFUSED = {
    "NaN": ({"x": x() * np.nan, "y": y()}, "NaN or infinite"),
    "infinity": ({"x": x() * np.float32(np.inf), "y": y()}, "NaN or infinite"),
    "too large for 32 bits": ({"x": x().astype(np.float64) * 1e300, "y": y()}, "NaN or infinite"),
    "objects": ({"x": np.array([{}] * SAMPLES, dtype=object), "y": y()}, "array of Python objects, which are never unpickled"),
    "text": ({"x": np.array([["a"]] * SAMPLES), "y": y()}, "must be numbers"),
    "dates": ({"x": np.zeros((SAMPLES, 2), "datetime64[s]"), "y": y()}, "must be numbers"),
    "complex": ({"x": x().astype(complex), "y": y()}, "must be numbers"),
    "fields": ({"x": np.zeros((SAMPLES, 2), [("a", "f4")]), "y": y()}, "must be numbers"),
    "a vector": ({"x": x()[:, 0], "y": y()}, "must be features"),
    "films": ({"x": images(4, 8, 8, 3), "y": y()}, "must be images"),
    "no samples": ({"x": x()[:0], "y": y()[:0]}, "at least one sample"),
    "no features": ({"x": x()[:, :0], "y": y()}, "at least one sample"),
    "images of large floats": ({"x": images(8, 8, dtype=float), "y": y()}, "between 0 and 1"),
    "one class": ({"x": x(), "y": np.zeros(SAMPLES, int)}, "nothing to tell apart"),
    "negative labels": ({"x": x(), "y": y() - 1}, "out of range"),
    "labels to be ignored": ({"x": x(), "y": np.where(y() == 2, -100, y())}, "out of range"),
    "labels that are identities": ({"x": x(), "y": y() + 10**9}, "out of range"),
    "labels as floats": ({"x": x(), "y": y().astype(float)}, "none other than 0 to 2"),
    "targets that are NaN": ({"x": x(), "y": y() * np.nan}, "NaN or infinite"),
    "one-hot labels": (
        {"x": x(), "y": np.eye(3, dtype=int)[y()]},
        r"outputs of shape \(samples, 2, 3\).*whole numbers \(samples,\)",
    ),
    "class maps for a model of samples": (
        {"x": images(8, 8), "y": images(8, 8) % 3},
        r"\(samples, 3, 8, 8\), got .* model=fcn",
    ),
    "maps of numbers": ({"x": images(8, 8), "y": images(8, 8).astype(float)}, "labels .* such as class maps, or floats"),
    "maps of nothing": ({"x": images(8, 8), "y": np.zeros((SAMPLES, 0, 8), int)}, "labels .* such as class maps"),
    "no dimension": ({"x": x(), "y": np.array(3)}, "one entry a sample"),
    "another length": ({"x": x(), "y": y()[:50]}, "differ in length"),
    "a test of another shape": ({"x_train": x(), "y_train": y(), "x_test": x(5), "y_test": y()}, "differ in shape"),
    "a test of further classes": ({"x_train": x(), "y_train": y(2), "x_test": x(), "y_test": y()}, "out of range"),
    "a test of another kind": ({"x_train": x(), "y_train": y(), "x_test": x(), "y_test": x()[:, 0]}, "differ in kind"),
    "two samples": ({"x": x()[:2], "y": y()[:2]}, "does not split|cannot be cut"),
}
assert len(TRAIN) >= 30


def write(folder, arrays):
    np.savez(folder.path.parent / "odd.npz", **arrays)
    return (
        *("data=npz", f"data.path={folder.path.parent / 'odd.npz'}", "data.batch_size=8", "max_steps=6", "optimizer.lr=0.001"),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* features deviate by no more than")  # told, of small values
@pytest.mark.parametrize("arrays", TRAIN.values(), ids=TRAIN)
def test_trains(folder, arrays):
    result = folder.train(*write(folder, arrays))
    assert result["status"] == "finished" and result["steps"] == 6
    assert all(math.isfinite(value) for value in result["metrics"].values())
    assert 0 <= result["metrics"].get("test/acc", 0) <= 1


@pytest.mark.parametrize(("arrays", "says"), REFUSED.values(), ids=REFUSED)
def test_is_refused_in_one_line(folder, arrays, says):
    with pytest.raises(RecipeError, match=says) as refused:
        folder.train(*write(folder, arrays))
    assert "\n" not in str(refused.value)
    assert not any(folder.path.iterdir())
