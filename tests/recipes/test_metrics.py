import json

import pytest
import torch

from recipes.metrics import Means, correct


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
    other_rank = Means.from_state(half.state_dict(), first_rank=False)
    assert other_rank.counts == {"loss": 0} and other_rank.sums["loss"] == 0


def test_correct():
    outputs = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
    assert correct(outputs, torch.tensor([1, 1, 1])) == 2
