import copy
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from plugins.averaging.ema import EMA
from plugins.base import Plugin, RecipeError, Stage
from plugins.guard.nan_rollback import NaNRollback
from plugins.regularizer.norm_ball import NormBall
from plugins.wrapper.lookahead import Lookahead, look_ahead

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class Watch(Plugin):
    """Keeps the weights after each step, and those of each validation."""

    stage = Stage.DIAGNOSTICS

    def __init__(self):
        self.history, self.validated = [], []

    def after_step(self, module, optimizer):
        self.history.append([parameter.detach().clone() for parameter in module.model.parameters()])

    def on_validation_end(self, trainer, pl_module):
        self.validated.append([parameter.detach().clone() for parameter in pl_module.model.parameters()])


def by_hand(problem, steps, k, alpha, acts=lambda step: True):
    """Algorithm 1: the slow weights, the fast ones, and each step's."""
    model, history = problem.copy(), []
    optimizer, slow, counted = SGD(model.parameters()), None, 0
    for step, (x, y) in enumerate(problem.batches[:steps]):
        if slow is None and acts(step):
            slow = copy.deepcopy(list(model.parameters()))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        counted += acts(step)
        if acts(step) and counted % k == 0:
            with torch.no_grad():
                for kept, weight in zip(slow, model.parameters(), strict=True):
                    kept += alpha * (weight - kept)
                    weight.copy_(kept)
        history.append([weight.detach().clone() for weight in model.parameters()])
    return slow, history


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_move_is_the_formula(dtype):
    slow, fast = [torch.randn(4, 3), torch.randn(2)], [torch.randn(4, 3).to(dtype), torch.randn(2).to(dtype)]
    expected = [kept + 0.3 * (weight.float() - kept) for kept, weight in zip(slow, fast, strict=True)]
    look_ahead(slow, fast, 0.3)
    torch.testing.assert_close(slow, expected)
    torch.testing.assert_close(fast, [value.to(dtype) for value in expected])


def test_equals_pytorch_optimizer_and_leaves_the_slow_weights(problem):
    oracle = pytest.importorskip("pytorch_optimizer").Lookahead
    model = problem.copy()
    optimizer = oracle(SGD(model.parameters()), k=3, alpha=0.4, pullback_momentum="none")
    for x, y in problem.batches[:6]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    trained = problem.fit(Lookahead(k=3, alpha=0.4), steps=6, optimizer=SGD).model
    torch.testing.assert_close(list(trained.parameters()), list(model.parameters()), rtol=1e-5, atol=1e-6)
    assert len(problem.log.series("lookahead/distance")) == 2 and min(problem.log.series("lookahead/distance")) > 0


def test_is_the_published_algorithm_and_evaluates_where_the_slow_weights_would_go(problem):
    watch = Watch()
    module = problem.fit(Lookahead(k=3, alpha=0.4), watch, steps=8, optimizer=SGD, val_check_interval=2)
    slow, expected = by_hand(problem, 8, 3, 0.4)
    for found, weights in zip(watch.history, expected, strict=True):
        torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-6)
    last = [kept + 0.4 * (weight - kept) for kept, weight in zip(slow, expected[-1], strict=True)]
    torch.testing.assert_close(list(module.model.parameters()), [nn.Parameter(value) for value in last], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(watch.validated[2], expected[5], rtol=1e-5, atol=1e-6)  # both are the same after k steps
    torch.testing.assert_close(watch.validated[3], [value.detach() for value in last], rtol=1e-5, atol=1e-6)


def test_acts_in_its_share_of_the_training_and_is_forgotten_then(problem):
    technique, watch = Lookahead(k=2, alpha=0.4), Watch()
    technique.when = (0.25, 0.75)
    module = problem.fit(technique, watch, steps=8, optimizer=SGD, val_check_interval=8)
    _, expected = by_hand(problem, 8, 2, 0.4, acts=lambda step: 2 <= step < 6)
    for found, weights in zip(watch.history, expected, strict=True):
        torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-6)
    assert all(map(torch.equal, watch.validated[-1], watch.history[-1]))
    assert all(map(torch.equal, module.model.parameters(), watch.history[-1]))


def test_weights_come_back_bit_for_bit_also_when_nested(problem, weights, same):
    class Look(Plugin):
        stage = Stage.DIAGNOSTICS

        def after_step(self, module, optimizer):
            before = weights(module)
            with technique.evaluation_weights(module):
                inside = weights(module)
                with technique.evaluation_weights(module):
                    assert same(weights(module), inside)
            assert same(weights(module), before)
            differed.append(not same(inside, before))

    technique, differed = Lookahead(k=3), []
    problem.fit(technique, Look(), steps=6)
    assert differed == [True, True, False] * 2


class Rest(L.Callback):
    """Freezes the first weight after four steps."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.train_parameters({"0.weight": pl_module.steps_done < 4})


@pytest.mark.parametrize("k", [3, 100])
def test_what_is_not_trained_any_more_stays_in_steps_and_in_evaluations(problem, k):
    watch = Watch()
    module = problem.fit(Lookahead(k), Rest(), watch, steps=8, optimizer=SGD, val_check_interval=2)
    kept = watch.history[3][0]
    found = [*watch.history[4:], *watch.validated[2:], list(module.model.parameters())]
    assert all(torch.equal(first, kept) for first, *_ in found)
    assert not torch.equal(found[0][2], found[-1][2])


def test_goes_on_after_a_checkpoint(problem, weights, same, tmp_path):
    whole = problem.fit(Lookahead(k=3), steps=16, save=(tmp_path / "last.ckpt", 8))
    resumed = problem.fit(Lookahead(k=3), steps=16, resume=tmp_path / "last.ckpt")
    assert same(weights(resumed), weights(whole))


def test_a_guard_that_goes_back_takes_the_slow_weights_with_it(problem):
    """By hand: the step in which a NaN is thrown is undone, and the slow weights begin anew with what the guard puts back."""
    thrown = [(x * torch.nan if number == 4 else x, y) for number, (x, y) in enumerate(problem.batches)]
    watch = Watch()
    guard = NaNRollback(every_n_steps=100, lr_factor=1.0)  # back to the start
    problem.fit(Lookahead(k=3, alpha=0.4), guard, watch, optimizer=SGD, loader=DataLoader(thrown, batch_size=None))
    problem.batches[:5] = []
    _, expected = by_hand(problem, 3, 3, 0.4)
    assert guard.count == 1 and all(map(torch.equal, watch.history[4], problem.copy().parameters()))
    for found, weights in zip(watch.history[5:], expected, strict=True):
        torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-6)


def test_no_average_beside_it_and_no_way_of_zero(problem):
    with pytest.raises(RecipeError, match="both define evaluation_weights, and there can be one only"):
        problem.fit(Lookahead(), EMA())
    with pytest.raises(RecipeError, match="norm_ball cannot bound the weights of wrapper=lookahead, which evaluates slow ones"):
        problem.fit(Lookahead(), NormBall(k=0.5))
    with pytest.raises(RecipeError, match=r"alpha must be a number in \(0, 1\], got 0"):
        Lookahead(alpha=0)
    assert Lookahead(alpha=1.0).is_off
