"""The tables and charts of a test on wandb hold what test.json and confusion.json hold."""

import json

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


def test_each_kind_has_its_tables():
    matrix = {"classes": ["x", "y"], "matrix": [[3, 1], [2, 4]]}
    charts = charts_of_test({"": KINDS["classification"] | matrix, "several": KINDS["multilabel"], "size": KINDS["regression"]})
    assert set(charts) == {
        *("test/classes", "test/confusion", "test/reliability", "test/several/labels", "test/several/reliability"),
        *("test/size/residuals", "test/size/quantiles"),
    }
    true, predicted = [0] * 4 + [1] * 6, [0, 0, 0, 1, 0, 0, 1, 1, 1, 1]
    expected = classification_report(true, predicted, target_names=["x", "y"], output_dict=True)
    table = charts["test/classes"]
    assert table.columns == ["class", "samples", "recall", "precision", "F1", "IoU"]
    for name, samples, recall, precision, f1, iou in table.data:
        row = expected[name]
        assert (samples, recall, precision, f1) == pytest.approx(
            [row[key] for key in ("support", "recall", "precision", "f1-score")]
        )
        assert iou == pytest.approx(f1 / (2 - f1))
    assert charts["test/confusion"].table.data == [["x", "x", 3], ["x", "y", 1], ["y", "x", 2], ["y", "y", 4]]
    assert charts["test/several/labels"].data == [["a", 7, 4 / 7, 4 / 6, 8 / 13]]
    assert charts["test/reliability"].table.data == [[0.2, 0.0, 1], [0.75, 0.5, 2]]
    assert charts["test/size/residuals"].histogram == [np.array(COLUMN["residual_predicted"]).sum(1)[1]]
    assert charts["test/size/quantiles"].data == [[1, 0.5, 1.0]]


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
    assert [row[2] for row in charts["test/confusion"].table.data] == [count for row in matrix for count in row]
    assert len(classes) == len(charts["test/classes"].data) == 10 == len(set(load_digits().target))
    samples = [count for count in read_tested(folder.path)[""]["reliability"]["samples"] if count]
    assert [row[2] for row in charts["test/reliability"].table.data] == samples
    tables = [json.loads(path.read_text()) for path in folder.path.glob("wandb/*/files/media/table/test/*.table.json")]
    assert any(table["columns"][0] == "class" and len(table["data"]) == 10 for table in tables)
