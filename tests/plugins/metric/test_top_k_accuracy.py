import pytest
from sklearn.metrics import top_k_accuracy_score

from plugins.base import RecipeError, Task
from plugins.metric.top_k_accuracy import TopKAccuracy
from tests.measured import built, drawn, measured


@pytest.mark.parametrize(("classes", "k"), [(2, 1), (6, 1), (6, 3), (6, 5)])
def test_equals_scikit_learn(classes, k):
    outputs, labels = drawn(classes)
    expected = top_k_accuracy_score(labels, outputs[:, 1] - outputs[:, 0] if classes == 2 else outputs, k=k)
    assert measured(TopKAccuracy(k), outputs, labels, classes) == pytest.approx(expected, abs=1e-6)


def test_refuses():
    with pytest.raises(RecipeError, match="k must be a whole number ≥ 1"):
        TopKAccuracy(0)
    with pytest.raises(
        RecipeError, match=r"of 5 classes the label is always among the 5 most probable: type metric.top_k_accuracy.k=4 or less"
    ):
        built(TopKAccuracy(5), tasks=(Task("", "classification", 5),))
