import pytest
import torch
from torch.distributions import Bernoulli, Categorical
from torch.nn import functional

from plugins.base import Batch, Refusal, Selection, Setting, Task
from plugins.regularizer._predictions import log_probabilities, mean_that_counts
from plugins.regularizer.confidence_penalty import ConfidencePenalty, entropy


@pytest.mark.parametrize("places", [(), (3, 2)])
def test_the_entropy_is_that_of_torch(places):
    z = 3 * torch.randn(7, 4, *places)
    torch.testing.assert_close(entropy(log_probabilities(z, "classification")), Categorical(logits=z.movedim(1, -1)).entropy())


def test_of_several_labels_it_is_that_of_each():
    z = 3 * torch.randn(7, 4)
    torch.testing.assert_close(entropy(log_probabilities(z, "multilabel")), Bernoulli(logits=z).entropy())


def test_sure_predictions_have_none_and_give_no_nan():
    z = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    for kind in ("classification", "multilabel"):
        found = entropy(log_probabilities(z[:, ::2], kind)).sum()
        assert found.item() == 0 and torch.autograd.grad(found, z)[0].isfinite().all()


def test_what_counts_for_nothing_is_none():
    values = torch.rand(4, 2, 3)
    weight = torch.tensor([2.0, 0.0, 1.0, 0.5])
    batch = Batch(values, {}, {}, weight={"a": weight, "b": torch.rand(4, 2, 3).round()})
    torch.testing.assert_close(mean_that_counts(values, batch, "a"), values[[0, 2, 3]].sum() / 24)
    torch.testing.assert_close(mean_that_counts(values, batch, "b"), (values * batch.weight["b"]).sum() / 24)
    torch.testing.assert_close(mean_that_counts(values, batch, "c"), values.mean())


def test_trains_as_the_loop_by_hand(problem):
    model = problem.copy().train()
    for x, y in problem.batches[:4]:
        model.zero_grad()
        z = model(x)
        p = z.softmax(1)
        (functional.cross_entropy(z, y) + 0.4 * (p * p.log()).sum(1).mean()).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    found = problem.fit(ConfidencePenalty(0.4), steps=4, optimizer=lambda groups: torch.optim.SGD(groups, 0.1)).model
    for ours, theirs in zip(found.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert problem.log.series("confidence_penalty/entropy")


def test_needs_classes():
    with pytest.raises(Refusal, match="regularizer/confidence_penalty needs a classification task"):
        ConfidencePenalty().check(Selection([], Setting((6,), (Task("", "regression", 1),))))


def test_what_counts_makes_up_for_how_often_a_sample_is_drawn():
    values, weight = torch.rand(3, 4), torch.tensor([1.0, 0.0, 2.0])
    batch = Batch(values, {}, {}, weight={"": weight}, correction=torch.tensor([2.0, 3.0, 0.5]))
    expected = (values * torch.tensor([2.0, 0.0, 0.5]).view(3, 1)).mean()
    torch.testing.assert_close(mean_that_counts(values, batch, ""), expected)
