"""The tables and histograms of a test on wandb hold what test.json and confusion.json hold."""

import re

import numpy as np
import pytest
import wandb
from sklearn.datasets import load_digits
from sklearn.metrics import classification_report

from recipes.run.loggers.wandb_charts import charts_of_test
from recipes.store.shapes import read_confusion
from recipes.store.tested import read_tested
from tests.recipes.store.test_tested import COLUMN, KINDS

WANDB = ("logger=wandb", "logger.wandb.mode=offline")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No key, no settings of wandb's; its service ends with the test."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    yield
    wandb.teardown()


def cells_of(page):
    """The cells of a table, row by row, the first of which is its head."""
    html = page if isinstance(page, str) else page.html
    rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


def test_each_kind_has_its_tables():
    matrix = {"classes": ["x", "y"], "matrix": [[3, 1], [2, 4]]}
    charts = charts_of_test({"": KINDS["classification"] | matrix, "several": KINDS["multilabel"], "size": KINDS["regression"]})
    assert set(charts) == {
        *("test/classes", "test/confusion", "test/reliability", "test/several/labels", "test/several/reliability"),
        *("test/size/residuals", "test/size/quantiles"),
    }
    true, predicted = [0] * 4 + [1] * 6, [0, 0, 0, 1, 0, 0, 1, 1, 1, 1]
    expected = classification_report(true, predicted, target_names=["x", "y"], output_dict=True)
    head, *rows = cells_of(charts["test/classes"])
    assert head == ["class", "samples", "recall", "precision", "F1", "IoU"]
    for name, samples, *numbers in rows:
        row, (recall, precision, f1, iou) = expected[name], map(float, numbers)
        assert int(samples) == row["support"]
        assert (recall, precision, f1) == pytest.approx([row[key] for key in ("recall", "precision", "f1-score")], abs=1e-4)
        assert iou == pytest.approx(f1 / (2 - f1), abs=2e-4)
    assert cells_of(charts["test/confusion"])[1:] == [["x", "3", "1"], ["y", "2", "4"]]
    assert cells_of(charts["test/several/labels"])[1:] == [["a", "7", "0.5714", "0.6667", "0.6154"]]
    assert [[float(cell) for cell in row] for row in cells_of(charts["test/reliability"])[1:]] == [
        [0.2, 0.0, 1],
        [0.75, 0.5, 2],
    ]
    assert charts["test/size/residuals"].histogram == [np.array(COLUMN["residual_predicted"]).sum(1)[1]]
    assert [[float(cell) for cell in row] for row in cells_of(charts["test/size/quantiles"])[1:]] == [[1, 0.5, 1.0]]
    alone = charts_of_test({"": KINDS["quantiles"]})
    assert set(alone) == {"test/quantiles"}
    assert [[float(cell) for cell in row] for row in cells_of(alone["test/quantiles"])[1:]] == [[1, 0.1, 0.125], [1, 0.9, 0.75]]


def test_names_are_text():
    entry = {"classes": ["<b>", "&"], "matrix": [[1, 0], [0, 1]], "kind": "classification"}
    assert cells_of(charts_of_test({"": entry})["test/confusion"])[1][0] == "&lt;b&gt;"


def test_a_large_matrix_is_left_to_the_report():
    entry = {
        "classes": [str(number) for number in range(60)],
        "matrix": np.eye(60, dtype=int).tolist(),
        "kind": "classification",
    }
    assert set(charts_of_test({"": entry})) == {"test/classes"}


def test_a_run_logs_them(folder, monkeypatch):
    logged = []
    original = wandb.sdk.wandb_run.Run.log
    monkeypatch.setattr(
        wandb.sdk.wandb_run.Run, "log", lambda run, data, *rest: (logged.append(data), original(run, data, *rest))
    )
    folder.train("max_steps=40", *WANDB)
    charts = next(data for data in logged if "test/confusion" in data)
    ((classes, matrix),) = read_confusion(folder.path).values()
    assert [list(map(int, row[1:])) for row in cells_of(charts["test/confusion"])[1:]] == matrix
    assert len(classes) == len(cells_of(charts["test/classes"])) - 1 == 10 == len(set(load_digits().target))
    samples = [count for count in read_tested(folder.path)[""]["reliability"]["samples"] if count]
    assert [int(row[2]) for row in cells_of(charts["test/reliability"])[1:]] == samples
    pages = [cells_of(path.read_text()) for path in folder.path.glob("wandb/*/files/media/html/test/*.html")]
    assert any(page[0][0] == "class" and len(page) == 11 for page in pages)
