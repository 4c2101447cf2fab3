import pytest
from sklearn.metrics import recall_score

from plugins.base import RecipeError
from plugins.metric.recall import Recall
from tests.measured import drawn, drawn_labels, expect_mean_over_labels_that_occur, measured


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize(("classes", "missing"), [(2, None), (5, None), (5, 2)])
def test_equals_scikit_learn(average, classes, missing):
    outputs, labels = drawn(classes, missing=missing)
    expected = recall_score(labels, outputs.argmax(1), average=average, zero_division=0)
    assert measured(Recall(average), outputs, labels, classes) == pytest.approx(expected, abs=1e-6)


def test_is_that_of_the_second_of_two_classes_and_the_mean_over_more():
    outputs, labels = drawn(2)
    assert measured(Recall(), outputs, labels, 2) == pytest.approx(recall_score(labels, outputs.argmax(1)), abs=1e-6)
    outputs, labels = drawn(4)
    expected = recall_score(labels, outputs.argmax(1), average="macro")
    assert measured(Recall(), outputs, labels, 4) == pytest.approx(expected, abs=1e-6)


def test_refuses():
    with pytest.raises(RecipeError, match="average must be one of macro, micro, weighted or null, got 'all'"):
        Recall("all")


@pytest.mark.parametrize("average", [None, "macro", "micro", "weighted"])
def test_of_several_labels_equals_scikit_learn(average):
    outputs, labels = drawn_labels(5)
    expected = recall_score(labels, outputs >= 0, average=average or "macro", zero_division=0)
    assert measured(Recall(average), outputs, labels) == pytest.approx(expected, abs=1e-6)


def test_a_label_that_no_sample_has_or_is_predicted_to_have_does_not_count():
    expect_mean_over_labels_that_occur(Recall(), recall_score)
