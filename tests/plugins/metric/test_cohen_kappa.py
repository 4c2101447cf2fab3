import pytest
from sklearn.metrics import cohen_kappa_score

from plugins.base import RecipeError
from plugins.metric.cohen_kappa import CohenKappa
from tests.measured import drawn, measured


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
@pytest.mark.parametrize("classes", [2, 5])
def test_equals_scikit_learn(classes, weights):
    outputs, labels = drawn(classes)
    expected = cohen_kappa_score(labels, outputs.argmax(1), weights=weights)
    assert measured(CohenKappa(weights), outputs, labels, classes) == pytest.approx(expected, abs=1e-6)


def test_refuses():
    with pytest.raises(RecipeError, match="weights must be one of linear, quadratic"):
        CohenKappa("cubic")
