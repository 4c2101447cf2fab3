"""test.json holds what scikit-learn makes of the file that predict.py writes, and is read back with all doubt."""

import copy
import csv
import io
import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.changing import read_run
from recipes.run.build import build_data
from recipes.run.predict import as_csv
from recipes.run.predictor import load
from recipes.store.shapes import read_confusion
from recipes.store.tested import read_tested, write_tested
from tests.recipes.compare.test_report import report_of
from tests.recipes.run.test_evaluate import measure

X, Y = load_digits(return_X_y=True)


def file_of(path, **arrays):
    np.savez(path, **arrays)
    return ("data=npz", f"data.path={path}", "data.test=0.5")


def predicted(folder):
    """The columns of the table that predict.py writes, as numbers where they are."""
    rows = list(csv.DictReader(io.StringIO(as_csv(load(folder.path).predict_data(elsewhere=False)).decode())))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "id"}


def true(folder, task=""):
    data = build_data(read_run(Catalogue(), folder.path))
    data.setup()
    test = data.splits["test"]
    return test.fetch(torch.arange(len(test)))[1][task].numpy()


def curve(found):
    samples, right, sums = (np.array(found[name]) for name in ("samples", "right", "sums"))
    return right[samples > 0] / samples[samples > 0], sums[samples > 0] / samples[samples > 0]


@pytest.mark.parametrize("words", [(), ("+averaging=ema", "averaging.decay=0.5")], ids=["plain", "averaged weights"])
def test_classes(folder, words):
    folder.train("max_steps=60", *words)
    table = predicted(folder)
    p = np.stack([table[f"probability_y_{number}"] for number in range(10)], 1)
    truth = true(folder)
    ((_, matrix),) = read_confusion(folder.path).values()
    assert matrix == confusion_matrix(truth, table["y"]).tolist()
    expected = calibration_curve(table["y"] == truth, p.max(1), n_bins=15)
    np.testing.assert_allclose(curve(read_tested(folder.path)[""]["reliability"]), expected, rtol=1e-6)


def test_several_labels(folder, tmp_path):
    labels = (X[:400, 10:15] + np.random.default_rng().normal(0, 3, (400, 5))) > 8
    folder.train("max_steps=40", *file_of(tmp_path / "a.npz", x=X[:400].astype("float32"), y=labels))
    table, truth = predicted(folder), true(folder)
    found = read_tested(folder.path)[""]
    there = np.stack([table[f"y_{number}"] for number in range(5)], 1)
    p = np.stack([table[f"probability_y_{number}"] for number in range(5)], 1)
    assert found["counts"] == multilabel_confusion_matrix(truth, there).reshape(5, 4).tolist()
    np.testing.assert_allclose(curve(found["reliability"]), calibration_curve(truth.ravel(), p.ravel(), n_bins=15), rtol=1e-6)


def test_numbers_and_their_quantiles_beside_classes(folder, tmp_path):
    x, size = load_diabetes(return_X_y=True)
    words = file_of(tmp_path / "a.npz", x=x.astype("float32"), size=size.astype("float32"), large=(size > 150).astype(int))
    folder.train("max_steps=60", *words, "data.target=[size,large]", "+multitask=equal")
    found, truth, z = read_tested(folder.path), true(folder, "size").ravel(), predicted(folder)["size"]
    assert found["large"]["kind"] == "classification" and list(found) == ["size", "large"]
    (column,) = found["size"]["columns"]
    assert column["range"] == [truth.min(), truth.max()]
    table = np.array(column["predicted_true"])
    np.testing.assert_array_equal(table.sum(0)[1:-1], np.histogram(truth, table.shape[0] - 2, column["range"])[0])
    assert table[0].sum() == (z < truth.min()).sum() and table[-1].sum() == (z > truth.max()).sum()
    residuals = np.array(column["residual_predicted"]).sum(1)
    width = column["residual"]
    assert np.abs(residuals[1:-1] - np.histogram(truth - z, len(residuals) - 2, (-width, width))[0]).sum() <= 2


def test_quantiles(folder, tmp_path):
    x, size = load_diabetes(return_X_y=True)
    words = file_of(tmp_path / "a.npz", x=x.astype("float32"), y=size.astype("float32"))
    folder.train("max_steps=60", *words, "loss=quantile", "loss.q=[0.1,0.5,0.9]")
    found, truth, table = read_tested(folder.path)[""], true(folder).ravel(), predicted(folder)
    assert found["levels"] == [0.1, 0.5, 0.9]
    assert found["columns"][0]["below"] == [int((truth <= table[f"y_q{level:g}"]).sum()) for level in found["levels"]]


def test_quantiles_without_the_median(folder, tmp_path):
    """There is no one prediction: what needs one is left out, by a test, a report, an evaluation and an ensemble, and all else is there."""
    x, size = load_diabetes(return_X_y=True)
    words = file_of(tmp_path / "a.npz", x=x.astype("float32"), y=np.stack([size, -size], 1).astype("float32"))
    folder.train("max_steps=60", *words, "loss=quantile", "loss.q=[0.1,0.9]")
    found, truth, table = read_tested(folder.path)[""], true(folder), predicted(folder)
    for number, column in enumerate(found["columns"]):
        of, expected = truth[:, number], [table[f"y_{number}_q{level:g}"] for level in (0.1, 0.9)]
        assert column == {
            "range": [of.min(), of.max()],
            "samples": len(of),
            "below": [int((of <= quantile).sum()) for quantile in expected],
        }
    shares = np.mean([np.array(column["below"]) / len(truth) for column in found["columns"]], 0)
    for more in ((), ("+inference=ensemble", f"inference.members={folder.path}")):
        metrics = measure(folder, *more)["metrics"]
        np.testing.assert_allclose([metrics[f"test/coverage_{level}"] for level in (0.1, 0.9)], shares, rtol=1e-6)
        assert metrics.keys() == {"test/loss", "test/coverage_0.1", "test/coverage_0.9"}
    with pytest.raises(RecipeError, match="several without the median: use inference.greedy=false"):
        measure(folder, "+inference=soup", f"inference.members={folder.path}", "inference.greedy=true")
    _, _, page = report_of(folder.path)
    assert page.sections[-1] == "numbers"


def test_class_maps(folder, tmp_path):
    images = (X[:200].reshape(-1, 1, 8, 8) / 16).astype("float32")
    folder.train("max_steps=20", "model=fcn", *file_of(tmp_path / "a.npz", x=images, y=(images[:, 0] > 0.5).astype("int64")))
    found = read_tested(folder.path)[""]
    p, truth = load(folder.path).predict_data(elsewhere=False).of().numpy(), true(folder)
    assert found["places"] == [8, 8]
    expected = calibration_curve((p.argmax(1) == truth).ravel(), p.max(1).ravel(), n_bins=15)
    np.testing.assert_allclose(curve(found["reliability"]), expected, rtol=1e-5)


RELIABILITY = {"samples": [1, 2], "right": [0, 1], "sums": [0.2, 1.5]}
TABLE = [[0, 0, 1]] * 3
COLUMN = {"range": [0.0, 1.0], "residual": 1.0, "predicted_true": TABLE, "residual_predicted": TABLE, "below": [3]}
KINDS = {
    "classification": {"kind": "classification", "places": [4, 4], "reliability": RELIABILITY},
    "multilabel": {
        "kind": "multilabel",
        "labels": ["a"],
        "threshold": 0.5,
        "counts": [[1, 2, 3, 4]],
        "reliability": RELIABILITY,
    },
    "regression": {"kind": "regression", "levels": [0.5], "columns": [COLUMN]},
    "quantiles": {
        "kind": "regression",
        "levels": [0.1, 0.9],
        "columns": [{"range": [0.0, 1.0], "samples": 8, "below": [1, 6]}],
    },
}


def test_what_is_written_is_read(tmp_path):
    write_tested(tmp_path, {})
    with pytest.raises(FileNotFoundError):
        read_tested(tmp_path)
    write_tested(tmp_path, KINDS)
    assert read_tested(tmp_path) == KINDS


def refused(folder):
    """The one line about a file that no run has written."""
    with pytest.raises(RecipeError, match=r"test\.json") as caught:
        read_tested(folder)
    assert "\n" not in str(caught.value)


def places(value, at=()):
    """Where something stands in plain content."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*at, key)
        yield from places(each, (*at, key))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [None, "x", -1, {}, [], [[]], [-1] * 3, float("nan"), 10**30], ids=str)
def test_another_value_anywhere_is_refused_in_a_line_or_as_harmless(tmp_path, kind, wrong):
    for at in places(KINDS[kind]):
        content = copy.deepcopy(KINDS[kind])
        inner = content
        for key in at[:-1]:
            inner = inner[key]
        inner[at[-1]] = wrong
        (tmp_path / "test.json").write_text(json.dumps({"format": 1, "tasks": {"": content}}))
        place = at[0] in ("threshold", "labels", "places") or {"sums", "range", "residual"} & {*at}
        if not place:
            refused(tmp_path)
        else:  # a number in a number's place, a text in a text's, no places at all
            with suppress(RecipeError):
                assert read_tested(tmp_path)[""].keys() == KINDS[kind].keys()


def test_a_newer_format_and_other_content_are_refused(tmp_path):
    for content in ({"format": 99, "tasks": KINDS}, {"format": 1}, {"tasks": 3}, {"tasks": {"a": 3}}, []):
        (tmp_path / "test.json").write_text(json.dumps(content))
        refused(tmp_path)
