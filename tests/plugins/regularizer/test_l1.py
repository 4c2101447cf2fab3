from functools import partial

import pytest
import torch
from torch.nn import functional

from plugins.base import Refusal, Selection, Setting, Task
from plugins.optimizer.pytorch_optimizer import PytorchOptimizer
from plugins.regularizer.l1 import L1Penalty, absolute_sum, soft_threshold
from plugins.regularizer.l2 import L2Penalty

RATES = {"0.weight": 0.1, "3.weight": 0.02}


def in_groups(parameters):
    """Plain gradient descent, with a rate of its own for each parameter of a weight layer."""
    parameters = [each for group in parameters for each in group["params"]] if isinstance(parameters[0], dict) else parameters
    groups = [{"params": [each], "lr": 0.02 if each.shape[0] == 3 else 0.1} for each in parameters]
    return torch.optim.SGD(groups, lr=0.1)


def by_hand(problem, steps, weight, proximal):
    """torch's own loop, over the first batches."""
    model = problem.copy().train()
    named = dict(model.named_parameters())
    for x, y in problem.batches[:steps]:
        model.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        if not proximal:
            loss = loss + sum(weight * named[name].abs().sum() for name in RATES)
        loss.backward()
        with torch.no_grad():
            for name, parameter in named.items():
                rate = 0.02 if name.startswith("3.") else 0.1
                parameter -= rate * parameter.grad
                if proximal and name in RATES:
                    parameter.copy_(functional.softshrink(parameter, rate * weight))
    return model


def test_value_and_gradient():
    weights = [torch.randn(4, 3, requires_grad=True), torch.randn(2, 3, 3, 3, requires_grad=True)]
    value = absolute_sum(weights)
    torch.testing.assert_close(value, sum(w.norm(1) for w in weights))
    for gradient, weight in zip(torch.autograd.grad(value, weights), weights, strict=True):
        assert torch.equal(gradient, weight.sign())


def test_the_threshold_is_that_of_torch():
    weight = torch.randn(50, 40)
    torch.testing.assert_close(soft_threshold(weight, 0.7), functional.softshrink(weight, 0.7))
    assert torch.equal(soft_threshold(weight, 0.7) == 0, weight.abs() <= 0.7)


@pytest.mark.parametrize("proximal", [False, True])
def test_trains_as_the_loop_by_hand(problem, proximal):
    expected = by_hand(problem, 6, 0.3, proximal)
    model = problem.fit(L1Penalty(0.3, proximal), steps=6, optimizer=in_groups).model
    for (name, ours), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
        assert torch.equal(ours == 0, theirs == 0), name
    assert (model[0].weight == 0).any() == proximal
    first, *_, last = problem.log.series("l1/penalty")
    assert (
        first == pytest.approx(0.3 * sum(problem.copy()[layer].weight.abs().sum().item() for layer in (0, 3)), rel=1e-5)
        and last < first
    )


def test_zeros_are_of_the_l1_norm_and_none_of_the_l2_norm(problem):
    """Lecture A: L1 treats all weights equally and makes most of them 0, L2 shrinks large ones and tolerates small ones."""
    penalties = {"l1": L1Penalty(0.15, proximal=True), "l2": L2Penalty(0.15)}
    plain = partial(torch.optim.SGD, lr=0.1)
    models = {name: problem.fit(penalty, steps=30, optimizer=plain).model for name, penalty in penalties.items()}
    zeros = {name: torch.cat([model[0].weight.flatten(), model[3].weight.flatten()]) == 0 for name, model in models.items()}
    assert zeros["l1"].float().mean() > 0.3 and not zeros["l2"].any()


@pytest.mark.parametrize("option", ["optimizer/schedule_free", "wrapper/lookahead", "averaging/ema", "averaging/swa"])
def test_refuses_zeros_that_an_average_would_lose(option):
    chosen = frozenset({option})
    selection = Selection([], Setting((6,), (Task("", "classification", 3),)), chosen=chosen)
    L1Penalty().check(selection)
    with pytest.raises(Refusal, match=rf"{option.replace('/', '=')}, whose .* regularizer\.l1\.proximal=false"):
        L1Penalty(proximal=True).check(selection)


def test_refuses_zeros_from_which_a_mean_is_taken():
    selection = Selection([], Setting((6,), ()), chosen=frozenset({"normalization/weight_standardization"}))
    L1Penalty().check(selection)
    with pytest.raises(Refusal, match=r"takes the mean of weights away: use regularizer\.l1\.proximal=false"):
        L1Penalty(proximal=True).check(selection)


@pytest.mark.parametrize(("name", "settings"), [("prodigy", {}), ("dadaptadam", {}), ("adafactor", {"relative_step": True})])
def test_refuses_to_threshold_by_a_rate_that_is_no_length_of_a_step(problem, name, settings):
    pytest.importorskip("pytorch_optimizer")

    def make(groups):
        return PytorchOptimizer(groups, name, lr=1.0, settings=settings)

    with pytest.raises(Refusal, match=r"finds the length of its steps itself: use regularizer\.l1\.proximal=false"):
        problem.fit(L1Penalty(0.1, proximal=True), steps=1, optimizer=make)
    problem.fit(L1Penalty(0.1), steps=1, optimizer=make)
