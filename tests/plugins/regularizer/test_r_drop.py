import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional
from torchvision import ops

from plugins.base import Refusal, Selection, Setting, Task, derive_seed
from plugins.regularizer._predictions import log_probabilities
from plugins.regularizer.r_drop import RDrop, drops, symmetric_divergence
from plugins.wrapper.sam import SAM


@pytest.mark.parametrize(("kind", "law"), [("classification", Categorical), ("multilabel", Bernoulli)])
def test_the_divergence_is_that_of_torch(kind, law):
    first, second = 2 * torch.randn(9, 4), 2 * torch.randn(9, 4)
    p, q = law(logits=first), law(logits=second)
    found = symmetric_divergence(log_probabilities(first, kind), log_probabilities(second, kind))
    torch.testing.assert_close(found, (kl_divergence(p, q) + kl_divergence(q, p)) / 2)


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 3))


@pytest.fixture
def dropping(problem):
    """The problem with dropout in its net."""
    problem.model = Net()
    problem.copy = lambda: (net := Net()).load_state_dict(problem.model.state_dict()) and net
    return problem


def test_trains_as_two_passes_by_hand(dropping):
    x, y = dropping.batches[0]
    model = dropping.copy().train()
    torch.manual_seed(derive_seed(0, "forward", 0, 0))
    first = model(x)
    statistics = [buffer.clone() for buffer in model.buffers()]
    torch.manual_seed(derive_seed(0, "r_drop", 0, 0))
    second = model(x)
    p, q = Categorical(logits=first), Categorical(logits=second)
    divergence = (kl_divergence(p, q) + kl_divergence(q, p)).mean() / 2
    assert divergence > 1e-3  # other masks
    (functional.cross_entropy(first, y) + 0.7 * divergence).backward()
    found = dropping.fit(RDrop(0.7), steps=1, optimizer=lambda groups: torch.optim.SGD(groups, 0.1)).model
    for ours, theirs in zip(found.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)
    for ours, theirs in zip(found.buffers(), statistics, strict=True):  # of the first pass alone
        torch.testing.assert_close(ours, theirs)
    assert dropping.log.series("r_drop/divergence") == [pytest.approx(divergence.item())]


def test_both_passes_of_sam_have_the_same_pairs_of_masks(dropping):
    wrapper = SAM(rho=1e-12)
    dropping.fit(RDrop(2.0), wrapper, steps=3)
    assert float(wrapper.wrapper.sharpness) == pytest.approx(0, abs=1e-6)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(functional.dropout(x, 0.5, self.training))


def test_needs_a_model_that_drops_something():
    plugin = RDrop()
    plugin.prepare(Setting((6,), (Task("", "classification", 3),)))
    assert plugin.transform_model(Functional()) and plugin.transform_model(nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.1)))
    for model in (nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.0)), nn.Linear(6, 3)):
        with pytest.raises(Refusal, match=r"drops none: type \+regularizer=dropout beside it"):
            plugin.transform_model(model)
    with pytest.raises(Refusal, match="needs a classification task"):
        plugin.check(Selection([], Setting((6,), (Task("", "regression", 1),))))


def test_layers_that_drop():
    there = [
        nn.Dropout2d(0.1),
        nn.MultiheadAttention(4, 2, 0.1),
        nn.LSTM(3, 4, 2, dropout=0.1),
        ops.StochasticDepth(0.2, "row"),
    ]
    assert all(map(drops, there)) and not any(map(drops, [nn.Dropout(0.0), nn.LSTM(3, 4), nn.PReLU(), nn.Linear(2, 2)]))
