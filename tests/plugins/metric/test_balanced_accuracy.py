import warnings

import pytest
from sklearn.metrics import balanced_accuracy_score

from plugins.metric.balanced_accuracy import BalancedAccuracy
from tests.measured import drawn, measured


@pytest.mark.parametrize(("classes", "missing"), [(2, None), (5, None), (5, 2)])
def test_equals_scikit_learn(classes, missing):
    outputs, labels = drawn(classes, missing=missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted and not there
        expected = balanced_accuracy_score(labels, outputs.argmax(1))
    assert measured(BalancedAccuracy(), outputs, labels, classes) == pytest.approx(expected, abs=1e-6)
