import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from plugins.base import RecipeError
from plugins.metric.average_precision import AveragePrecision
from tests.measured import drawn, drawn_labels, measured


@pytest.mark.parametrize(("classes", "missing"), [(3, None), (6, None), (6, 1)])
def test_equals_scikit_learn_over_the_classes_that_there_are(classes, missing):
    outputs, labels = drawn(classes, missing=missing)
    labels_, p = labels.numpy(), outputs.double().softmax(1).numpy()
    each = {c: average_precision_score(labels_ == c, p[:, c]) for c in range(classes) if c != missing}
    assert measured(AveragePrecision(), outputs, labels, classes) == pytest.approx(np.mean([*each.values()]), abs=1e-6)
    expected = sum(value * (labels_ == c).mean() for c, value in each.items())
    assert measured(AveragePrecision("weighted"), outputs, labels, classes) == pytest.approx(expected, abs=1e-6)


def test_of_two_classes_is_that_of_the_second():
    outputs, labels = drawn(2)
    expected = average_precision_score(labels, outputs.double().softmax(1)[:, 1])
    assert measured(AveragePrecision(), outputs, labels, 2) == pytest.approx(expected, abs=1e-6)


def test_is_none_where_nothing_is_of_the_class():
    outputs, labels = drawn(2)
    for label in (-1, 0):
        assert math.isnan(measured(AveragePrecision(), outputs, torch.full_like(labels, label), 2))


def test_many_thresholds_are_nearly_exact():
    outputs, labels = drawn(4)
    exact = measured(AveragePrecision(), outputs, labels, 4)
    assert measured(AveragePrecision(thresholds=2000), outputs, labels, 4) == pytest.approx(exact, abs=1e-2)


def test_refuses():
    with pytest.raises(RecipeError, match="average must be one of macro, weighted"):
        AveragePrecision("micro")
    with pytest.raises(RecipeError, match="thresholds must be a whole number ≥ 2"):
        AveragePrecision(thresholds=0)


@pytest.mark.parametrize("missing", [None, 2])
def test_of_several_labels_equals_scikit_learn_over_those_that_occur(missing):
    outputs, labels = drawn_labels(5, missing=missing)
    kept = [label for label in range(5) if label != missing]
    for average in ("macro", "weighted"):
        expected = average_precision_score(labels[:, kept], outputs[:, kept], average=average)
        assert measured(AveragePrecision(average), outputs, labels) == pytest.approx(expected, abs=1e-6)
