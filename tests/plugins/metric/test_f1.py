import pytest
from sklearn.metrics import f1_score

from plugins.base import RecipeError
from plugins.metric.f1 import F1Score
from tests.measured import drawn, drawn_labels, expect_mean_over_labels_that_occur, measured


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize(("classes", "missing"), [(2, None), (5, None), (5, 2)])
def test_equals_scikit_learn(average, classes, missing):
    outputs, labels = drawn(classes, missing=missing)
    expected = f1_score(labels, outputs.argmax(1), average=average, zero_division=0)
    assert measured(F1Score(average), outputs, labels, classes) == pytest.approx(expected, abs=1e-6)


def test_is_that_of_the_second_of_two_classes_and_the_mean_over_more():
    outputs, labels = drawn(2)
    assert measured(F1Score(), outputs, labels, 2) == pytest.approx(f1_score(labels, outputs.argmax(1)), abs=1e-6)
    outputs, labels = drawn(4)
    expected = f1_score(labels, outputs.argmax(1), average="macro")
    assert measured(F1Score(), outputs, labels, 4) == pytest.approx(expected, abs=1e-6)


def test_refuses():
    with pytest.raises(RecipeError, match="average must be one of macro, micro, weighted or null, got 'all'"):
        F1Score("all")


@pytest.mark.parametrize("average", [None, "macro", "micro", "weighted"])
def test_of_several_labels_equals_scikit_learn(average):
    outputs, labels = drawn_labels(5)
    expected = f1_score(labels, outputs >= 0, average=average or "macro", zero_division=0)
    assert measured(F1Score(average), outputs, labels) == pytest.approx(expected, abs=1e-6)


def test_a_label_that_no_sample_has_or_is_predicted_to_have_does_not_count():
    expect_mean_over_labels_that_occur(F1Score(), f1_score)
