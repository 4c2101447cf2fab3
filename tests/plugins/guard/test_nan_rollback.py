import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from plugins.averaging.ema import EMA
from plugins.base import OptimizerWrapper, Plugin, RecipeError, Refusal, Selection, Setting, Stage
from plugins.guard._rollback import scale_rates
from plugins.guard.nan_rollback import NaNRollback, all_finite
from plugins.optimizer.schedule_free import ScheduleFreeAdamW
from plugins.scheduler.linear import LinearDecay
from plugins.scheduler.one_cycle import OneCycle
from tests.ranks import on_ranks


class Watch(Plugin):
    """Keeps weights, running averages, learning rate and the factor of momentum after each step."""

    stage = Stage.DIAGNOSTICS

    def __init__(self):
        self.weights, self.momentum, self.rates, self.factors = [], [], [], []

    def after_step(self, module, optimizer):
        self.weights.append({name: value.clone() for name, value in module.model.state_dict().items()})
        self.momentum.append([state["momentum_buffer"].clone() for state in optimizer.state.values()])
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.factors.append(optimizer.param_groups[0]["momentum"])


def poisoned(problem, *at, value=math.nan):
    """The problem's batches, with a bad number in some of them; the first is number 1."""
    batches = [
        (torch.where(torch.eye(8, 6) > 0, value, x) if number in at else x, y)
        for number, (x, y) in enumerate(problem.batches, start=1)
    ]
    return DataLoader(batches, batch_size=None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_every_bad_number_is_found(value):
    tensors = [torch.tensor(2.0), torch.randn(4, 3), torch.randn(5), 1e15 * torch.randn(3)]
    assert all_finite(tensors)
    for tensor in tensors:
        kept = tensor.clone()
        tensor.view(-1)[-1] = value
        assert not all_finite(tensors)
        tensor.copy_(kept)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_goes_back_lowers_the_rate_and_goes_on(problem, same, value):
    watch, clean = Watch(), Watch()
    plugin = NaNRollback(lr_factor=0.25, every_n_steps=2)
    problem.fit(plugin, watch, loader=poisoned(problem, 6, value=value))
    assert plugin.count == 1 and problem.log.series("nan_rollback/count") == [0] * 5 + [1] * 3
    problem.fit(clean, steps=4)
    for after in range(4):
        assert same(watch.weights[after], clean.weights[after])
    assert same(watch.weights[4 + 1], clean.weights[3])
    assert all(torch.equal(a, b) for a, b in zip(watch.momentum[5], clean.momentum[3], strict=True))
    assert watch.rates == [0.1] * 5 + [0.025] * 3
    assert plugin.events == [
        "loss, gradients or weights became NaN or infinite at step 6: back to the state of step 4, the learning rate 0.1 times 0.25 from here on"
    ]


def test_what_follows_is_training_from_there_with_the_lower_rate(problem, same):
    watch = Watch()
    problem.fit(NaNRollback(every_n_steps=3), watch, loader=poisoned(problem, 5))
    # steps 1, 2, 3, then 6, 7, 8 at half the rate, by hand
    model = problem.copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for number in (1, 2, 3, 6, 7, 8):
        optimizer.param_groups[0]["lr"] = 0.1 if number <= 3 else 0.05
        x, y = problem.batches[number - 1]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    torch.testing.assert_close(watch.weights[-1], dict(model.state_dict()))


def test_a_bad_first_step_goes_back_to_the_initial_weights(problem, same):
    watch = Watch()
    problem.fit(NaNRollback(), watch, loader=poisoned(problem, 1))
    assert same(watch.weights[0], dict(problem.copy().state_dict()))


class Poison(Plugin):
    """Spoils the gradient before, or the weights after, some steps."""

    stage = Stage.CLIPPING

    def __init__(self, what, value, *at):
        self.what, self.value, self.at = what, value, at

    def transform_gradient(self, module, parameters):
        if self.what == "gradient" and module.steps_done + 1 in self.at:
            parameters[0].grad[0, 0] = self.value

    def after_step(self, module, optimizer):
        if self.what == "weight" and module.steps_done in self.at:
            with torch.no_grad():
                next(module.model.parameters())[0, 0] = self.value


@pytest.mark.parametrize("what", ["gradient", "weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_gradient_or_weight_is_undone(problem, what, value):
    plugin = NaNRollback(every_n_steps=1)
    module = problem.fit(plugin, Poison(what, value, 4))
    assert plugin.count == 1
    assert all(torch.isfinite(p).all() for p in module.model.parameters())


def test_an_infinite_gradient_is_found_where_the_update_hides_it():
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.tensor([1.0, math.inf, 0.0])
    module = SimpleNamespace(last_objective=torch.tensor(1.0))
    plugin, optimizer = NaNRollback(), torch.optim.SGD([weight], lr=1.0)
    assert not plugin.is_good(module, optimizer)
    plugin.check(Selection([plugin], Setting((3,), ()), precision="16-mixed"))  # where loss scaling skips such steps
    assert plugin.is_good(module, optimizer)


def test_without_bad_numbers_it_is_plain_training_bit_for_bit(problem, weights, same):
    assert same(weights(problem.fit(NaNRollback(every_n_steps=3), steps=11)), weights(problem.fit(steps=11)))


def test_gives_up_with_advice(problem):
    plugin = NaNRollback(max_rollbacks=2, lr_factor=0.5)
    with pytest.raises(
        RecipeError, match=r"NaN or infinite at step 5, after 2 rollbacks \(learning rate now 0.025\): try .*clip"
    ):
        problem.fit(plugin, loader=poisoned(problem, 3, 4, 5))
    with pytest.raises(RecipeError, match="at step 2, after 0 rollbacks"):
        problem.fit(NaNRollback(max_rollbacks=0), loader=poisoned(problem, 2))


@pytest.mark.parametrize("schedule", [LinearDecay(), OneCycle()])
def test_the_schedule_goes_on_at_the_lower_rate(problem, schedule):
    with_rollback, without = Watch(), Watch()
    problem.fit(NaNRollback(lr_factor=0.5), with_rollback, loader=poisoned(problem, 4), scheduler=schedule)
    problem.fit(without, scheduler=schedule)
    halved = [rate * (0.5 if step >= 4 else 1) for step, rate in enumerate(without.rates, start=1)]
    assert with_rollback.rates == pytest.approx(halved)


def test_momentum_stays_where_a_schedule_that_has_ended_has_left_it(problem):
    with_rollback, without, schedule = Watch(), Watch(), OneCycle(steps=4)
    problem.fit(NaNRollback(every_n_steps=3), with_rollback, loader=poisoned(problem, 6), scheduler=schedule)
    problem.fit(without, scheduler=schedule)
    assert with_rollback.factors == without.factors and without.factors[2] != without.factors[5]


def test_what_an_optimizer_counts_in_its_groups_goes_back_too(problem):
    make = partial(ScheduleFreeAdamW, lr=0.05)
    trained = problem.fit(NaNRollback(every_n_steps=100), loader=poisoned(problem, 6), optimizer=make, steps=7).model
    model, (x, y) = problem.copy(), problem.batches[6]
    nn.functional.cross_entropy(model(x), y).backward()
    make(model.parameters(), lr=0.025).step()  # its first step, from the start
    torch.testing.assert_close(list(trained.parameters()), list(model.parameters()))


def test_schedulers_made_of_others():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.8)
    parts = [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)) for _ in range(2)]
    whole = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])
    scale_rates(optimizer, [whole], 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.4
    assert parts[0].base_lrs == parts[1].base_lrs == [0.4]


def test_an_average_never_sees_the_bad_weights(problem):
    module = problem.fit(EMA(0.5), NaNRollback(), loader=poisoned(problem, 4))
    assert all(torch.isfinite(p).all() for p in module.model.parameters())


def test_a_wrappers_own_state_goes_back_too():
    class Slow(OptimizerWrapper):
        def __init__(self, optimizer):
            super().__init__(optimizer)
            self.slow = torch.zeros(2)

        def state_dict(self):
            return {**super().state_dict(), "slow": self.slow}

        def load_state_dict(self, state_dict):
            super().load_state_dict(state_dict)
            self.slow = state_dict["slow"]

    model = nn.Linear(2, 1)
    trainer = SimpleNamespace(lr_scheduler_configs=[])
    module = SimpleNamespace(model=model, steps_done=0, trainer=trainer, forget_step=lambda: None)
    plugin, optimizer = NaNRollback(), Slow(torch.optim.SGD(model.parameters(), lr=0.1))
    plugin.keep(module, optimizer)
    for _ in range(2):  # twice, since what was put back must not change what was kept
        optimizer.slow.add_(5)
        plugin.roll_back(module, optimizer, "bad")
        assert torch.equal(optimizer.slow, torch.zeros(2))
    assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5 * 0.5


@pytest.mark.parametrize("bad", [(), (3,), (9,), (3, 12)])
def test_goes_on_after_a_checkpoint(problem, weights, same, tmp_path, bad):
    def fit(**arguments):
        plugin = NaNRollback(every_n_steps=5)
        module = problem.fit(plugin, Poison("gradient", math.nan, *bad), steps=16, scheduler=LinearDecay(), **arguments)
        return {**weights(module), "count": torch.tensor(plugin.count)}

    path = tmp_path / "last.ckpt"
    whole = fit(save=(path, 8))
    assert whole["count"] == len(bad)
    assert same(fit(resume=path), whole)


def decisions():
    rank = dist.get_rank()
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    modules = [SimpleNamespace(last_objective=torch.tensor(losses[rank])) for losses in ((1.0, 1.0), (1.0, math.nan))]
    return [NaNRollback().is_good(module, optimizer) for module in modules]


def test_all_ranks_decide_alike():
    assert on_ranks(2, decisions) == [[True, False]] * 2


def test_refuses_weights_of_small_range():
    with pytest.raises(Refusal, match="16-true"):
        NaNRollback().check(Selection([], Setting((3,), ()), precision="16-true"))


def test_with_a_time_of_its_own_it_begins_with_the_state_before_that(problem, same):
    watch = Watch()
    plugin = NaNRollback(when=(0.5, 1.0), every_n_steps=100)
    problem.fit(plugin, watch, loader=poisoned(problem, 6), steps=8)
    assert same(watch.weights[5], watch.weights[3]) and "back to the state of step 4" in plugin.events[0]
