import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from plugins.base import RecipeError
from plugins.metric.auroc import AUROC
from tests.measured import drawn, drawn_labels, measured


def one_against_the_rest(labels, p):
    """By class; NaN where there are no samples of the class, or no others."""
    return np.array(
        [roc_auc_score(labels == c, p[:, c]) if 0 < (labels == c).sum() < len(labels) else math.nan for c in range(p.shape[1])]
    )


@pytest.mark.parametrize(("classes", "missing"), [(3, None), (6, None), (6, 1)])
def test_equals_scikit_learn_over_the_classes_that_there_are(classes, missing):
    outputs, labels = drawn(classes, missing=missing)
    labels_, p = labels.numpy(), outputs.double().softmax(1).numpy()
    each, support = one_against_the_rest(labels_, p), np.bincount(labels_, minlength=classes)
    assert measured(AUROC(), outputs, labels, classes) == pytest.approx(np.nanmean(each), abs=1e-6)
    expected = np.nansum(each * support) / len(labels)
    assert measured(AUROC("weighted"), outputs, labels, classes) == pytest.approx(expected, abs=1e-6)


def test_of_two_classes_is_that_of_the_second_also_where_probabilities_are_near_1():
    outputs, labels = drawn(2)
    outputs = 12 * outputs  # in 32 bits most probabilities would be exactly 1
    expected = roc_auc_score(labels, outputs.double().softmax(1)[:, 1])
    assert measured(AUROC(), outputs, labels, 2) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_is_none_where_all_samples_are_of_one_class(classes):
    outputs, labels = drawn(classes)
    assert math.isnan(measured(AUROC(), outputs, torch.ones_like(labels), classes))


@pytest.mark.parametrize("classes", [2, 4])
def test_many_thresholds_are_nearly_exact(classes):
    outputs, labels = drawn(classes)
    exact = measured(AUROC(), outputs, labels, classes)
    assert measured(AUROC(thresholds=2000), outputs, labels, classes) == pytest.approx(exact, abs=5e-3)
    assert measured(AUROC(thresholds=3), outputs, labels, classes) != pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"average": "micro"}, "average must be one of macro, weighted"),
        ({"thresholds": 1}, "thresholds must be a whole number ≥ 2"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        AUROC(**arguments)


@pytest.mark.parametrize("missing", [None, 2])
def test_of_several_labels_equals_scikit_learn_over_those_that_tell(missing):
    outputs, labels = drawn_labels(5, missing=missing)
    kept = [label for label in range(5) if label != missing]
    for average in ("macro", "weighted"):
        expected = roc_auc_score(labels[:, kept], outputs[:, kept], average=average)
        assert measured(AUROC(average), outputs, labels) == pytest.approx(expected, abs=1e-6)
    assert math.isnan(measured(AUROC(), outputs, torch.ones_like(labels)))
