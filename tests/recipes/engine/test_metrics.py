import json
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.metrics import confusion_matrix

from plugins.base import Task
from recipes.engine import metrics
from recipes.engine.metrics import PIECE, Confusion, Histogram, Means
from tests.ranks import on_ranks


def test_means_are_over_samples_not_over_batches():
    means, values = Means(), torch.randn(23)
    for piece in values.split(5):  # the last one is smaller
        means.add("loss", piece.mean(), len(piece))
        means.add("hits", (piece > 0).sum(), len(piece), summed=True)
    computed = means.compute()
    assert computed["loss"] == pytest.approx(float(values.mean()), abs=1e-6)
    assert computed["hits"] == pytest.approx(float((values > 0).float().mean()))


def test_nothing_counts_as_nothing():
    means = Means()
    assert means.compute() == {} and means.state_dict() == {}
    means.add("loss", torch.tensor(2.0), 4)
    means.add("loss", torch.zeros(0).mean(), 0)  # what a rank without samples has: not a number
    assert means.compute() == {"loss": 2.0}


def test_since_is_what_came_after_a_copy():
    means = Means()
    means.add("loss", torch.tensor(1.0), 2)
    before = means.copy()
    means.add("loss", torch.tensor(4.0), 6)
    means.add("acc", torch.tensor(3), 6, summed=True)
    assert means.since(before) == {"loss": 4.0, "acc": 0.5}
    assert before.compute() == {"loss": 1.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_state_goes_on_bit_for_bit(dtype):
    """Through plain numbers, as a checkpoint keeps them."""
    whole, half = Means(), Means()
    values = torch.rand(40).to(dtype)
    for value in values[:20]:
        whole.add("loss", value, 7)
        half.add("loss", value, 7)
    resumed = Means.from_state(json.loads(json.dumps(half.state_dict())))
    for value in values[20:]:
        whole.add("loss", value, 7)
        resumed.add("loss", value, 7)
    assert whole.compute() == resumed.compute() and whole.state_dict() == resumed.state_dict()


def test_each_rank_goes_on_with_its_own_sums():
    state = {"loss": [[1.5, 2.25], [4, 3]]}  # of two ranks
    for rank, (total, count) in enumerate(((1.5, 4), (2.25, 3))):
        means = Means.from_state(state, rank, 2)
        assert means.sums["loss"] == total and means.counts == {"loss": count}
    for rank, (total, count) in enumerate(((3.75, 7), (0, 0), (0, 0))):  # another number of them
        means = Means.from_state(state, rank, 3)
        assert means.sums["loss"] == total and means.counts == {"loss": count}


def test_an_older_state_has_the_sums_of_all_ranks():
    for rank, (total, count) in enumerate(((3.5, 7), (0, 0))):
        means = Means.from_state({"loss": [3.5, 7]}, rank, 2)
        assert means.sums["loss"] == total and means.counts == {"loss": count}


@pytest.mark.parametrize("classes", [2, 7, 300])
def test_confusion_is_that_of_scikit_learn(classes):
    confusion, batches = Confusion(Task("", "classification", classes), torch.device("cpu")), []
    for size in (100, 1, 0, 57):
        outputs, labels = torch.randn(size, classes), torch.randint(max(2, classes // 2), (size,))  # the upper half is absent
        confusion.add(outputs, labels)
        batches.append((outputs.argmax(1), labels))
    predicted, labels = (torch.cat(found) for found in zip(*batches, strict=True))
    expected = confusion_matrix(labels, predicted, labels=range(classes))
    assert confusion.compute() == expected.tolist() == confusion.compute()


def test_labels_that_are_no_class_are_not_counted():
    confusion = Confusion(Task("", "classification", 3), torch.device("cpu"))
    confusion.add(torch.eye(3)[[0, 1, 2, 2, 0]], torch.tensor([0, -100, 2, 3, 1]))
    assert confusion.compute() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


def confusions(outputs, labels):
    confusion = Confusion(Task("", "classification", 4), torch.device("cpu"))
    empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    for step in range(2):  # the second rank has no sample
        confusion.add(*((outputs[step::2], labels[step::2]) if dist.get_rank() == 0 else empty))
    return [confusion.compute(), confusion.compute()]


def test_confusion_over_two_ranks_one_without_samples():
    outputs, labels = torch.randn(50, 4), torch.randint(4, (50,))
    expected = confusion_matrix(labels, outputs.argmax(1), labels=range(4)).tolist()
    assert on_ranks(2, confusions, outputs, labels) == [[expected, expected]] * 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5,), (40, 30), (2, PIECE // 2 + 100)])
def test_histogram_is_that_of_numpy(shape, dtype):
    values = (torch.randn(shape, dtype=torch.float64) * 3).to(dtype)
    counts, edges = np.histogram(values.double().numpy(), 64)
    low, high, found = Histogram.of(values).read()
    assert (low, high) == (edges[0], edges[-1])
    if dtype == torch.bfloat16:  # so coarse that values lie on the edges between bins
        assert np.abs(np.cumsum(found) - np.cumsum(counts)).max() <= 0.02 * values.numel()
    else:
        assert found == counts.tolist()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 3e38])
def test_only_finite_values_are_counted(scale):
    values = torch.cat([torch.rand(250), -torch.rand(250)]) * scale
    expected = np.histogram(values.double().numpy(), 64)
    spoilt = torch.cat([values, torch.tensor([torch.nan, torch.inf, -torch.inf, torch.nan])])[torch.randperm(504)]
    low, high, counts = Histogram.of(spoilt).read()
    assert counts == expected[0].tolist() and (low, high) == (expected[1][0], expected[1][-1])


def test_histograms_of_nothing_and_of_one_value():
    for nothing in (torch.zeros(0), torch.full((3,), torch.nan), torch.tensor([torch.inf, -torch.inf])):
        assert Histogram.of(nothing).read() is None
    low, high, counts = Histogram.of(torch.full((9,), 2.5)).read()
    expected, edges = np.histogram(np.full(9, 2.5), 64)
    assert (low, high, counts) == (edges[0], edges[-1], expected.tolist())


def test_a_histogram_survives_a_checkpoint():
    for values in (torch.randn(100), torch.full((2,), torch.nan), torch.zeros(0)):
        histogram = Histogram.of(values)
        assert Histogram.from_state(json.loads(json.dumps(histogram.state_dict()))).read() == histogram.read()


# ------------------------------------------------------------------ long windows


def exactly(values, counts):
    """The mean as the sum of fractions."""
    return float(sum(Fraction(float(value)) * count for value, count in zip(values, counts, strict=True)) / sum(counts))


@pytest.mark.parametrize("width", [torch.float64, torch.float32], ids=["64 bits", "32 bits and what is lost"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 3e4])
def test_sums_do_not_drift_over_long_windows(width, scale, monkeypatch):
    """As many steps as an epoch of ImageNet has; a plain sum of 32 bits is off by a hundred times the tolerance and more."""
    monkeypatch.setattr(metrics, "widest", lambda device: width)
    values = scale * (
        torch.rand(20_000, generator=torch.Generator().manual_seed(0)) + 0.5
    )  # of others a plain sum may be right by chance
    means, plain = Means(), torch.zeros(())
    for value in values:
        means.add("loss", value, 32)
        plain = plain + value * 32
    expected = exactly(values, [32] * len(values))
    assert means.compute()["loss"] == pytest.approx(expected, rel=1e-9)
    assert abs(float(plain) / (32 * len(values)) - expected) > 1e-7 * expected
    assert means.counts == {"loss": 32 * len(values)}


@pytest.mark.parametrize("width", [torch.float64, torch.float32], ids=["64 bits", "32 bits and what is lost"])
def test_the_window_at_the_end_of_a_long_sum_is_right(width, monkeypatch):
    monkeypatch.setattr(metrics, "widest", lambda device: width)
    means = Means()
    for _ in range(3):
        means.add("loss", torch.tensor(1e7), 32)
    earlier, last = means.copy(), torch.rand(50) * 1e-2
    for value in last:
        means.add("loss", value, 32)
    assert means.since(earlier)["loss"] == pytest.approx(float(last.double().mean()), rel=1e-5)
    assert earlier.compute()["loss"] == pytest.approx(1e7)


def test_hits_of_very_many_samples_are_whole_numbers():
    means = Means()
    means.add("acc", torch.tensor(2**24), 2**25, summed=True)
    for _ in range(7):
        means.add("acc", torch.tensor(1), 1, summed=True)
    assert means.compute()["acc"] == (2**24 + 7) / (2**25 + 7)


def test_nothing_since_is_no_number():
    means = Means()
    means.add("loss", torch.tensor(1.0), 4)
    assert means.since(means.copy()) == {}


def test_a_device_without_64_bits_is_asked_for_none(monkeypatch):
    assert metrics.widest(torch.device("mps")) == torch.float32 and metrics.widest(torch.device("cpu")) == torch.float64
    monkeypatch.setattr(metrics, "widest", lambda device: torch.float32)
    values = torch.randn(500)
    histogram = Histogram.of(values)
    assert histogram.low.dtype == torch.float32
    expected, _ = np.histogram(values.numpy(), 64)
    assert np.abs(expected - histogram.counts.numpy()).sum() <= 4  # rounding may put a value into the next bin
