import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from plugins.averaging.ema import EMA
from plugins.averaging.swa import SWA
from plugins.base import Diverged, RecipeError, Stage
from plugins.guard.divergence import Divergence, Usual
from plugins.guard.nan_rollback import NaNRollback
from plugins.wrapper.lookahead import Lookahead
from tests.plugins.guard.test_nan_rollback import Poison, Watch
from tests.ranks import on_ranks


def after(losses):
    usual = Usual()
    for loss in losses:
        usual = usual.after(loss)
    return usual


def test_the_running_mean_written_out():
    losses = np.random.default_rng().uniform(0.5, 3, 40)
    means = [losses[:count].mean() for count in range(1, 11)]
    for loss in losses[10:]:
        means.append(0.9 * means[-1] + 0.1 * loss)
    usual = after(losses)
    assert usual.steps == 40 and usual.mean == pytest.approx(means[-1]) and usual.best == pytest.approx(min(means))


def test_what_is_too_much():
    usual = after([2.0, 1.0])
    assert (
        usual.best == 1.5
        and not usual.is_too_much(4.5, 3.0)
        and usual.is_too_much(4.51, 3.0)
        and usual.is_too_much(math.nan, 3.0)
    )
    assert not Usual().is_too_much(1e9, 3.0)  # nothing is known yet
    nearly_nothing = after([2.0] + 200 * [1e-7])
    assert nearly_nothing.best == pytest.approx(0.02) and not nearly_nothing.is_too_much(0.05, 3.0)
    assert after([2.0] + 200 * [-5.0]).best == pytest.approx(0.02)  # a penalty may make it negative


class Losses:
    """A module and an optimizer of one weight, whose loss is what it is told to be; the weight counts the steps that stay."""

    def __init__(self, plugin):
        self.weight = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.weight.weight)
        self.optimizer, self.plugin = torch.optim.SGD(self.weight.parameters(), lr=1.0), plugin
        self.module = SimpleNamespace(
            model=self.weight, steps_done=0, trainer=SimpleNamespace(lr_scheduler_configs=[]), forget_step=lambda: None,
            record=lambda *number: None, step_undone=False,
        )  # fmt: skip
        plugin.keep(self.module, self.optimizer)

    def steps(self, *losses):
        for loss in losses:
            self.module.steps_done += 1
            self.weight.weight.data += 1
            self.module.last_objective = torch.tensor(loss)
            self.plugin.after_step(self.module, self.optimizer)
        return self


def test_so_many_bad_steps_in_a_row_go_back_and_fewer_do_not():
    plugin = Divergence(factor=2.0, patience=3, lr_factor=0.25, every_n_steps=2)
    run = Losses(plugin).steps(1.0, 1.0, 1.0, 9.0, 9.0, 1.0, 9.0, 9.0)
    assert run.weight.weight.item() == 8 and plugin.count == 0 and not plugin.events
    run.steps(9.0)
    assert run.weight.weight.item() == 2 and plugin.count == 1 and run.optimizer.param_groups[0]["lr"] == 0.25
    assert plugin.events == [
        "the loss was above 2 times its best mean (1) for 3 steps at step 9: back to the state of step 2, the learning rate 1 times 0.25 "
        "from here on"
    ]


def test_weights_that_an_update_has_broken_are_no_good_state():
    plugin = Divergence(patience=2, every_n_steps=1)
    run = Losses(plugin).steps(1.0, 1.0, 9.0, 9.0)  # the second update broke them
    assert run.weight.weight.item() == 1 and plugin.good["step"] == 1 and not plugin.next


def test_so_does_the_guard_against_numbers_that_are_none():
    """The second update broke the weights, though each of them is finite: the next loss tells."""
    plugin = NaNRollback(every_n_steps=1)
    run = Losses(plugin).steps(1.0, 1.0, math.nan)
    assert run.weight.weight.item() == 1 and plugin.good["step"] == 1 and not plugin.next
    whole, resumed = NaNRollback(every_n_steps=1), NaNRollback(every_n_steps=1)
    resumed.load_state_dict(Losses(whole).steps(1.0, 1.0).plugin.state_dict())
    assert resumed.next["step"] == 2 and resumed.good["step"] == 1


def test_a_smaller_patience_after_a_checkpoint_does_not_wait_for_ever():
    plugin = Divergence(patience=3)
    run = Losses(plugin).steps(1.0)
    plugin.bad = 5
    assert run.steps(9.0).plugin.count == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_none_goes_back_at_once(loss):
    plugin = Divergence(patience=3, every_n_steps=1)
    run = Losses(plugin).steps(1.0, 1.0, loss)
    assert run.weight.weight.item() == 1 and plugin.count == 1
    assert plugin.events == [
        f"the loss was {loss} at step 3: back to the state of step 1, the learning rate 1 times 0.5 from here on"
    ]


def test_beside_the_guard_that_undoes_such_a_step_it_waits():
    plugin = Divergence(patience=3)
    plugin.check(SimpleNamespace(has=lambda name: name == "guard/nan_rollback"))
    run = Losses(plugin).steps(1.0, math.nan, math.nan)
    assert run.weight.weight.item() == 3 and plugin.count == 0
    run.steps(9.0)
    assert run.weight.weight.item() == 0 and plugin.count == 1


class Nowhere(Watch):
    """Makes the loss of some steps NaN."""

    def __init__(self, *at):
        super().__init__()
        self.at = at

    def penalty(self, module, batch, outputs):
        return next(iter(outputs.values())).sum() * math.nan if module.steps_done + 1 in self.at else None


def test_a_training_whose_loss_is_none_goes_on(problem, weights):
    """Though what is logged is looked at, each step."""
    plugin = Divergence()
    found = weights(problem.fit(Nowhere(3, 4), plugin, steps=8))
    assert plugin.count == 2 and all(value.isfinite().all() for value in found.values())


def test_weights_of_a_step_that_the_other_guard_has_undone_are_no_good_state(problem):
    """The loss of that step was good: only the weights behind it are none."""
    plugin, other = Divergence(every_n_steps=1), NaNRollback(every_n_steps=1)
    problem.fit(plugin, other, Poison("weight", math.nan, 4), steps=5)
    assert other.count == 1 and plugin.count == 0
    kept = [value for state in (plugin.good, plugin.next) if state for value in state["model"].values()]
    assert kept and all(value.isfinite().all() for value in kept)


def test_a_step_that_one_guard_has_undone_the_other_leaves_alone(problem):
    plugin, other = Divergence(patience=2), NaNRollback()
    module = problem.fit(Nowhere(3, 4), plugin, other, steps=8)
    assert (plugin.count, other.count) == (1, 1)  # the first such step is undone by the one, the second by the other
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == 0.1 * 0.5 * 0.5


@pytest.mark.parametrize("other", [EMA(), SWA(), Lookahead()])
def test_beside_an_average_it_is_refused(problem, other):
    with pytest.raises(RecipeError, match="which the average would keep: take \\+guard=nan_rollback"):
        problem.fit(Divergence(), other, steps=1)


def test_gives_up_after_so_many_times_or_at_once():
    for most, bad in ((0, 2), (2, 6)):
        plugin = Divergence(patience=2, max_rollbacks=most)
        run = Losses(plugin).steps(1.0, *(bad - 1) * [9.0])
        with pytest.raises(
            Diverged, match=rf"^guard/divergence: the loss was above 3 times .* at step {bad + 1}, after {most} rollbacks"
        ) as error:
            run.steps(9.0)
        assert "\n" not in str(error.value) and isinstance(error.value, RecipeError) and plugin.events[-1].endswith("given up")
        assert len(plugin.events) == most + 1


def test_a_training_that_goes_well_is_plain_training_bit_for_bit(problem, weights, same):
    assert same(weights(problem.fit(Divergence(), steps=11)), weights(problem.fit(steps=11)))


class Throw(Watch):
    """Throws the weights far away after some steps, so that the loss is large from the next step on."""

    stage = Stage.PROJECTION

    def __init__(self, *at):
        super().__init__()
        self.at = at

    def after_step(self, module, optimizer):
        super().after_step(module, optimizer)
        if module.steps_done in self.at:
            with torch.no_grad():
                module.model[3].weight.mul_(1e4)


@pytest.mark.parametrize("at", [(), (3,), (3, 9)])
def test_goes_on_after_a_checkpoint(problem, weights, same, tmp_path, at):
    def fit(**arguments):
        plugin = Divergence(patience=2, every_n_steps=2, lr_factor=0.1)
        module = problem.fit(Throw(*at), plugin, steps=16, **arguments)
        return {**weights(module), "count": torch.tensor(plugin.count)}, plugin.events

    path = tmp_path / "last.ckpt"
    whole, events = fit(save=(path, 8))
    assert whole["count"] == len(at) == len(events)
    resumed, again = fit(resume=path)
    assert same(resumed, whole) and again == events


def means():
    module = SimpleNamespace(last_objective=torch.tensor((1.0, 4.0)[dist.get_rank()]))
    return Divergence.loss_of(module)


def test_all_ranks_see_one_loss():
    assert on_ranks(2, means) == [2.5, 2.5]
