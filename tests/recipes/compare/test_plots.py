import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from recipes.compare.groups import Group
from recipes.compare.plots import curves, dimension, in_epochs
from recipes.compare.runs import read
from recipes.compare.summaries import average, class_scores
from recipes.compare.technique_plots import heat_map
from recipes.config.catalogue import Catalogue
from tests.recipes.compare.fabricated import leave


def test_mean_and_deviation_at_each_step_over_the_curves_that_have_it():
    random = np.random.default_rng()
    drawn = []
    for _ in range(4):
        steps = np.sort(random.choice(50, random.integers(5, 40), replace=False))
        values = random.normal(size=len(steps))
        values[random.integers(len(steps))] = math.nan
        drawn.append((steps.tolist(), values.tolist()))
    at = {}
    for steps, values in drawn:
        for step, value in zip(steps, values, strict=True):
            if value == value:
                at.setdefault(step, []).append(value)
    steps, means, deviations, seeds = average(drawn, 1000)
    assert steps == sorted(at)
    np.testing.assert_allclose(means, [np.mean(at[step]) for step in steps])
    np.testing.assert_allclose(deviations, [np.std(at[step], ddof=1) if len(at[step]) > 1 else 0 for step in steps], atol=1e-12)
    assert seeds == [len(at[step]) for step in steps]


def test_long_curves_are_averaged_over_neighbouring_points():
    random = np.random.default_rng()
    length = int(random.integers(301, 5000))
    values = random.normal(size=length)
    steps, means, _, seeds = average([(list(range(length)), values.tolist())], 300)
    width = math.ceil(length / 300)
    assert len(steps) <= 300 and set(seeds) == {1}
    for place in (0, len(steps) // 2, len(steps) - 1):
        part = slice(place * width, (place + 1) * width)
        assert means[place] == pytest.approx(values[part].mean())
        assert steps[place] == pytest.approx(np.arange(length)[part].mean())


def phase(begins, steps, epochs):
    return {
        **{"name": "first", "begins": begins, "steps": steps, "epochs": epochs, "seconds": 1.0, "samples_per_step": 8},
        **{"best_step": 1, "metrics": {}, "stopped_early": False, "trained_on_validation": False, "until": {}},
    }


def test_each_phase_has_epochs_of_its_own_length_and_no_line_leads_to_the_next(tmp_path):
    two = {"phases": 2, "phase_begins": [0, 20], "phase_results": [phase(0, 20, 2.0), phase(20, 30, 1.5)]}
    curve = {"val/loss": [3.0, 2.0, 1.5, 1.25, 1.0]}
    runs = [
        read(leave(tmp_path / "a", curve=curve, steps=50, epochs=3.5, **two), Catalogue()),
        read(leave(tmp_path / "b", curve=curve, steps=50, epochs=5.0), Catalogue()),
    ]
    assert in_epochs(runs[:1]) == [[0, 20, 50], [0, 2.0, 3.5]] and in_epochs(runs[1:]) == [[0, 50], [0, 5.0]]
    assert in_epochs(runs) == [[0, 50], [0, 4.25]]  # which have not as many phases
    assert in_epochs([read(leave(tmp_path / "c", steps=None, epochs=None), Catalogue())]) == []
    alone, beside = (curves([Group(group)], ["val/loss"], 300)["val/loss"]["data"][0] for group in (runs[:1], runs))
    assert alone["x"] == [10, 20, 20, 30, 40, 50] and alone["y"] == [3.0, 2.0, None, 1.5, 1.25, 1.0]
    assert len(alone["error_y"]["array"]) == 6 and alone["meta"]["begins"] == [20]
    assert beside["x"] == [10, 20, 30, 40, 50] and beside["meta"]["begins"] == [20]


def test_a_curve_of_no_numbers_is_none():
    assert average([([1, 2], [math.nan, math.inf])], 300) == ([], [], [], [])
    assert average([], 300) == ([], [], [], [])


def test_recall_precision_and_f1_are_those_of_scikit_learn():
    random = np.random.default_rng()
    counts = random.integers(0, 30, (6, 6))
    true, predicted = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    expected = precision_recall_fscore_support(true, predicted, labels=range(6))
    scores = class_scores(counts.tolist())
    for name, values in zip(("precision", "recall", "F1"), expected, strict=False):
        np.testing.assert_allclose(scores[name], values)


def test_a_class_that_never_occurs_has_no_score():
    scores = class_scores([[3, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert scores["recall"] == [1, 0, None] and scores["precision"] == [0.75, None, None] and scores["F1"][2] is None


def test_histograms_on_common_bins_keep_their_distribution():
    random = np.random.default_rng()
    entries = []
    for step in range(5):
        counts, edges = np.histogram(random.normal(random.normal(), random.uniform(0.1, 3), 1000), 64)
        entries.append((step, float(edges[0]), float(edges[-1]), counts.tolist()))
    steps, middles, shares = heat_map(entries)
    assert steps == [0, 1, 2, 3, 4]
    width = middles[1] - middles[0]
    ends = np.array(middles) + width / 2
    for place, (_, low, high, counts) in enumerate(entries):
        column = np.array([row[place] for row in shares])
        assert column.sum() == pytest.approx(100, abs=0.1)
        below = 100 * np.interp(ends, np.linspace(low, high, 65), np.cumsum([0, *counts]) / 1000)
        np.testing.assert_allclose(column.cumsum(), below, atol=0.1)


def test_histograms_of_one_value():
    _, middles, shares = heat_map([(1, 2.0, 2.0, [7])])
    column = [row[0] for row in shares]
    assert sum(column) == pytest.approx(100) and abs(middles[int(np.argmax(column))] - 2) < 0.05
    assert heat_map([(1, 0.0, 1.0, [0, 0])])[2][0] == [0]


def test_axes_of_hyperparameters():
    few = dimension("optimizer.lr", ["0.1", "0.01", None, "1.0"])
    assert few["ticktext"] == ["none", "0.01", "0.1", "1.0"] and few["values"] == [2, 1, 0, 3]
    words = dimension("model.activation", ["relu", "[1, 2]", "gelu"])
    assert [words["ticktext"][place] for place in words["values"]] == ["relu", "[1, 2]", "gelu"]
    many = [str(value) for value in range(1, 11)]
    assert dimension("x", many)["values"] == list(range(1, 11))
    wide = dimension("x", [str(10.0**-power) for power in range(8)])
    np.testing.assert_allclose(wide["values"], -np.arange(8.0))
    assert wide["ticktext"][0] == "1e-07" and wide["ticktext"][-1] == "1"
    drawn = dimension("x", ["0.054408136647394645", "0.0813456968961", "0.0010000000000000217"])  # by a search
    assert drawn["values"] == [0.054408, 0.081346, 0.001] and len(drawn["ticktext"]) == 5
    assert max(map(len, drawn["ticktext"])) <= 8
    name = "trainer.accumulate_grad_batches"
    assert dimension(name, ["1", "2"])["label"] == name  # whole
    lacking = dimension("x", [*many, None])
    assert lacking["values"][-1] < 1 and lacking["ticktext"][0] == "none"
    assert lacking["tickvals"][0] == pytest.approx(lacking["values"][-1])
