"""What a test counts beside its metrics is what scikit-learn and numpy make of the predictions themselves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.calibration import calibration_curve
from sklearn.metrics import multilabel_confusion_matrix
from torchmetrics.functional.classification import multiclass_calibration_error

from plugins.base import Task
from plugins.loss.quantile import QuantileLoss
from recipes.data.loaders import EvaluationLoader
from recipes.data.split import Split
from recipes.engine.tallies import CELLS, MOST_COLUMNS, OfClasses, OfLabels, OfNumbers, tallies_of
from tests.ranks import on_ranks

CPU = torch.device("cpu")


def filled(tally, outputs, targets, pieces=3):
    for output, target in zip(outputs.tensor_split(pieces), targets.tensor_split(pieces), strict=True):
        tally.add(output, target)
    return tally.compute()


def curve(reliability):
    """Share that is right and mean probability in the bins that have a sample."""
    samples, right, sums = (np.array(reliability[name]) for name in ("samples", "right", "sums"))
    return right[samples > 0] / samples[samples > 0], sums[samples > 0] / samples[samples > 0]


@pytest.mark.parametrize("places", [(), (3, 4)])
def test_reliability_of_classes(places):
    outputs, labels = 3 * torch.randn(200, 4, *places), torch.randint(4, (200, *places))
    found = filled(OfClasses(Task("", "classification", 4, shape=places), CPU, True), outputs, labels)
    p, decided = outputs.softmax(1).max(1)
    true, mean = calibration_curve((decided == labels).flatten(), p.flatten(), n_bins=15)
    np.testing.assert_allclose(curve(found["reliability"]), (true, mean), rtol=1e-6)
    samples, right, sums = (np.array(found["reliability"][name]) for name in ("samples", "right", "sums"))
    expected = multiclass_calibration_error(outputs.softmax(1), labels, 4, n_bins=15, norm="l1")
    assert np.abs(right - sums).sum() / samples.sum() == pytest.approx(float(expected), rel=1e-4)
    assert found["places"] == list(places)


def test_labels_that_are_ignored_do_not_count_and_a_probability_of_one_does():
    outputs, labels = torch.tensor([[100.0, 0.0], [100.0, 0.0], [0.0, 100.0]]), torch.tensor([0, -100, 0])
    found = filled(OfClasses(Task("", "classification", 2), CPU, True), outputs, labels, 1)["reliability"]
    assert (found["samples"][-1], found["right"][-1], found["sums"][-1], sum(found["samples"])) == (2, 1, 2.0, 2)


def test_a_loss_that_trains_no_probabilities_gets_none():
    tally = OfClasses(Task("", "classification", 2), CPU, False)
    assert filled(tally, torch.randn(4, 2), torch.zeros(4).long()) == {"kind": "classification", "places": []}


def test_several_labels():
    outputs, labels = torch.randn(90, 5), torch.rand(90, 5) < 0.3
    task = Task("", "multilabel", 5, names=tuple("abcde"), threshold=0.3)
    found = filled(OfLabels(task, CPU), outputs, labels)
    p = outputs.sigmoid()
    matrices = multilabel_confusion_matrix(labels, p >= 0.3)  # [[tn, fp], [fn, tp]]
    assert found["counts"] == matrices.reshape(5, 4).tolist() and found["labels"] == list("abcde")
    true, mean = calibration_curve(labels.flatten(), p.flatten(), n_bins=15)
    np.testing.assert_allclose(curve(found["reliability"]), (true, mean), rtol=1e-6)


def cells(values, low, high):
    """Shares of values in the cells of a range, with one beyond each end."""
    edges = np.linspace(low, high, CELLS + 1)
    return [-np.inf, *edges[:-1], np.nextafter(edges[-1], np.inf), np.inf]


def test_numbers_lie_in_the_cells_of_numpy():
    true = torch.randn(400, 2, dtype=torch.float64) * torch.tensor([1.0, 50.0])
    predicted = true + torch.randn(400, 2, dtype=torch.float64) * torch.tensor([0.05, 60.0])
    found = filled(OfNumbers(Task("", "regression", 2), true, (), CPU), predicted, true)
    assert found["levels"] == []
    for number, column in enumerate(found["columns"]):
        t, z = true[:, number].numpy(), predicted[:, number].numpy()
        low, high = column["range"]
        assert (low, high) == (t.min(), t.max()) and column["below"] == []
        expected = np.histogram2d(z, t, [cells(z, low, high), cells(t, low, high)])[0]
        assert np.abs(np.array(column["predicted_true"]) - expected).sum() <= 2  # one at an edge, of rounding
        width = column["residual"]
        expected = np.histogram2d(t - z, z, [cells(t, -width, width), cells(z, low, high)])[0]
        assert np.abs(np.array(column["residual_predicted"]) - expected).sum() <= 2
        inside, half = (np.abs(t - z) <= width).mean(), (np.abs(t - z) <= width / 2).mean()
        assert (inside >= 0.99 or width == high - low) and half < 0.99  # the finest scale that holds nearly all


def test_predictions_far_off_and_no_number():
    true = torch.linspace(0, 1, 10)
    predicted = torch.tensor([1e30, -1e30, float("nan"), float("inf"), 0.4, 0.5, 0.6, 0.7, 0.8, 1.0])
    (column,) = filled(OfNumbers(Task("", "regression", 1), true, (), CPU), predicted.unsqueeze(1), true)["columns"]
    table = np.array(column["predicted_true"])
    assert (table.sum(), table[0].sum(), table[-1].sum()) == (8, 1, 1)
    assert table[CELLS].sum() == 1  # the upper end is in the last cell
    (same,) = OfNumbers(Task("", "regression", 1), torch.full((5,), 3.0), (), CPU).compute()["columns"]
    assert same["range"] == [2.5, 3.5]
    many = OfNumbers(Task("", "regression", 50), torch.randn(5, 50), (), CPU)
    assert len(filled(many, torch.randn(5, 50), torch.randn(5, 50))["columns"]) == MOST_COLUMNS


def test_targets_below_each_quantile():
    true = torch.randn(200, 2)
    outputs = torch.randn(200, 6)
    task = Task("", "regression", 6, quantiles=(0.1, 0.5, 0.9))
    found = filled(OfNumbers(task, true, task.quantiles, CPU), outputs, true)
    for number, column in enumerate(found["columns"]):
        assert column["below"] == [int((true[:, number] <= outputs[:, 3 * number + place]).sum()) for place in range(3)]
    median = filled(OfNumbers(Task("", "regression", 2), true, (), CPU), outputs[:, [1, 4]], true)
    assert [each["predicted_true"] for each in found["columns"]] == [each["predicted_true"] for each in median["columns"]]


def test_what_is_counted_follows_the_loss_and_the_loader():
    loader = EvaluationLoader(Split({"": torch.randn(6, 3)}, {"": torch.randn(6)}))
    setting = SimpleNamespace(tasks=(Task("", "regression", 1),))
    module = SimpleNamespace(setting=setting, loss=QuantileLoss(0.9), device=CPU)
    assert tallies_of(module, loader)[""].levels == (0.9,)
    assert tallies_of(module, "a loader of somebody else") == {}


def on_this_rank(outputs, labels, numbers, targets):
    which = slice(None) if not dist.is_initialized() else slice(0, 30) if dist.get_rank() else slice(30, None)
    classes, several = OfClasses(Task("", "classification", 4), CPU, True), OfLabels(Task("", "multilabel", 4), CPU)
    regression = OfNumbers(Task("", "regression", 1), targets, (0.5,), CPU)
    for tally, output, target in (
        (classes, outputs, labels),
        (several, outputs, outputs > labels.unsqueeze(1)),
        (regression, numbers, targets),
    ):
        tally.add(output[:0], target[:0])
        tally.add(output[which], target[which])
    return [tally.compute() for tally in (classes, several, regression)]


def without_sums(found):
    """What was counted, and apart the sums of probabilities, which a processor may round another way in another batch."""
    sums = [total for each in found if "reliability" in each for total in each["reliability"].pop("sums")]
    return found, sums


def test_two_ranks_count_what_one_counts():
    data = torch.randn(100, 4), torch.randint(4, (100,)), torch.randn(100, 1), torch.randn(100)
    alone = on_this_rank(*data)
    first, second = on_ranks(2, on_this_rank, *data)
    assert first == second
    (counts, sums), (expected, expected_sums) = without_sums(first), without_sums(alone)
    assert counts == expected and sums == pytest.approx(expected_sums, abs=1e-5)
