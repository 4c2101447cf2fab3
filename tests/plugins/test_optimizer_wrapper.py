"""A wrapper is an optimizer in whatever one does with optimizers: copies, pickles, hooks, closures, schedules."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from plugins.base import OptimizerWrapper, closure_of, needs_closure
from plugins.wrapper.sam import SharpnessAware

INNER = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
}
WRAPPERS = {"plain": OptimizerWrapper, "sam": lambda inner: SharpnessAware(inner, 0.05)}


def net():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


def saved(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def steps(model, optimizer, x, number=3):
    def closure():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    for _ in range(number):
        optimizer.step(closure)
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair)), saved], ids=["copy", "pickle", "save"]
)
@pytest.mark.parametrize("with_schedule", [False, True])
@pytest.mark.parametrize("inner", sorted(INNER))
@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_a_copy_trains_like_the_original_and_leaves_it_alone(wrapper, inner, with_schedule, copied):
    model, x = net(), torch.randn(8, 5)
    optimizer = WRAPPERS[wrapper](INNER[inner](model.parameters()))
    if with_schedule:
        torch.optim.lr_scheduler.StepLR(optimizer, 2)  # which puts a step of its own into the instance
    steps(model, optimizer, x)
    other_model, other = copied((model, optimizer))
    assert type(other) is type(optimizer) and type(other.optimizer) is type(optimizer.optimizer)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trained = steps(other_model, other, x)
    assert all(map(torch.equal, before, model.parameters()))
    assert all(map(torch.equal, trained, steps(model, optimizer, x)))
    assert repr(other) == repr(optimizer) and vars(other).keys() == vars(optimizer).keys() - {"step"}


def test_hooks_act_on_the_optimizer_inside():
    calls = []
    model = net()
    optimizer = OptimizerWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.register_state_dict_post_hook(lambda *_: calls.append("state"))
    optimizer.register_load_state_dict_post_hook(lambda *_: calls.append("load"))
    steps(model, optimizer, torch.randn(3, 5), 1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["before", "after", "state", "load"]


def test_what_a_wrapper_has_not_is_that_of_the_optimizer():
    inner = torch.optim.SGD(net().parameters(), lr=0.1)
    inner.train = lambda: "trains"
    optimizer = OptimizerWrapper(OptimizerWrapper(inner))
    assert optimizer.train() == "trains"
    with pytest.raises(AttributeError, match="no attribute|missing"):
        _ = optimizer.missing
    groups = [dict(group) for group in inner.param_groups]
    optimizer.param_groups = groups
    assert inner.param_groups is groups
    optimizer.state = state = {}
    assert inner.state is state


def test_what_takes_a_closure_and_what_needs_one():
    class Old(torch.optim.SGD):
        def step(self):
            return super().step()

    parameters = [nn.Parameter(torch.ones(2))]
    assert needs_closure(torch.optim.LBFGS(parameters)) and not needs_closure(torch.optim.Adam(parameters))
    assert closure_of(Old(parameters)) is None and closure_of(torch.optim.Adam(parameters)) is not None
    assert not needs_closure(OptimizerWrapper(torch.optim.SGD(parameters)))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.Adagrad])
def test_one_closure_inside_is_the_step_that_it_was(kind):
    class WithoutClosure(kind):
        def step(self):
            return super().step()

    model, x = net(), torch.randn(6, 5)
    other = copy.deepcopy(model)
    with_closure = steps(model, OptimizerWrapper(kind(model.parameters(), lr=0.05)), x)
    without = steps(other, OptimizerWrapper(WithoutClosure(other.parameters(), lr=0.05)), x)
    assert all(map(torch.equal, with_closure, without))


def test_lbfgs_is_that_of_torch():
    model, x = net(), torch.randn(6, 5)
    other = copy.deepcopy(model)
    wrapped = steps(model, OptimizerWrapper(torch.optim.LBFGS(model.parameters(), max_iter=5)), x)
    assert all(map(torch.equal, wrapped, steps(other, torch.optim.LBFGS(other.parameters(), max_iter=5), x)))
