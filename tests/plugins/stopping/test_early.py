import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from plugins.averaging.ema import EMA
from plugins.base import Plugin, RecipeError, Stage
from plugins.regularizer.l2 import L2Penalty
from plugins.stopping.early import EarlyStopping, Search
from recipes.engine.module import RecipeModule
from tests.plugins.stopping.scripted import algorithm_7_1, drawn, early_on_a_rank
from tests.ranks import on_ranks


@pytest.mark.parametrize("p", [1, 3, 6])
@pytest.mark.parametrize("min_delta", [0.0, 0.3])
def test_is_algorithm_7_1(p, min_delta):
    for _ in range(30):
        errors = np.random.default_rng().normal(size=20).round(1).tolist()  # rounded, so that ties happen
        _, i_star, evaluations, trace = algorithm_7_1(errors, 7, p, min_delta)
        search, got = Search(), []
        for k, error in enumerate(errors, start=1):
            search = search.observe(error, 7 * k, min_delta)
            got.append(tuple(search))
            if search.waited >= p:
                break
        assert got == trace and len(got) == evaluations and search.best_step == i_star


def test_nan_is_never_better():
    search = Search().observe(math.nan, 5)
    assert search == (math.inf, 0, 1)
    assert Search(1.0, 5, 0).observe(math.nan, 10) == (1.0, 5, 1)
    assert Search(math.inf, 0, 3).observe(2.0, 10) == (2.0, 10, 0)


class Script(Plugin):
    """Publishes validation metrics from a list, and keeps the weights that each of them is for."""

    stage = Stage.INFERENCE

    def __init__(self, errors, name="loss"):
        self.errors, self.name, self.weights = list(errors), name, []

    def measure(self, module, batch, outputs, split):
        value = self.errors[len(self.weights)]
        return {self.name: torch.full((len(batch),), float(value))}

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.weights.append({name: value.clone() for name, value in pl_module.model.state_dict().items()})


@pytest.mark.parametrize("name", ["error", "acc_scripted"])
def test_stops_and_goes_back_to_the_best_weights(problem, weights, same, name):
    errors = [5, 3, 4, 2, 2, 9, 1, 1, 0]
    _, i_star, evaluations, _ = algorithm_7_1(errors, 3, 2)
    values = [-error for error in errors] if "acc" in name else errors
    script, plugin = Script(values, name), EarlyStopping(f"val/{name}", patience=2, every_n_steps=3)
    module = problem.fit(plugin, script, steps=100, **plugin.trainer_arguments())
    assert module.steps_done == 3 * evaluations == 18
    assert plugin.best_step == i_star == 12 and plugin.monitor == f"val/{name}"
    assert same(weights(module), script.weights[3])
    assert not same(weights(module), script.weights[-1])


def test_evaluates_every_n_epochs(problem):
    plugin = EarlyStopping("val/error", patience=2, every_n_epochs=2)
    module = problem.fit(plugin, Script([3, 2, 2, 2, 1], "error"), steps=500, **plugin.trainer_arguments())
    assert plugin.best_step == 2 * 2 * 8 and module.steps_done == 4 * 2 * 8


def test_a_training_that_ends_before_has_the_best_weights_too(problem, weights, same):
    script, plugin = Script([3, 1, 2], "error"), EarlyStopping("val/error", patience=9)
    module = problem.fit(plugin, script, steps=24)
    assert module.steps_done == 24 and same(weights(module), script.weights[1])


def test_the_best_weights_are_the_evaluated_ones_where_weights_are_averaged(problem, weights, same):
    script = Script([3, 1, 2, 2], "error")
    plugin = EarlyStopping("val/error", patience=2)
    module = problem.fit(EMA(0.9), script, plugin, steps=400)
    assert module.steps_done == 32 and same(weights(module), script.weights[1])


def test_the_sanity_check_and_validation_alone_do_not_count(problem):
    plugin = EarlyStopping("val/error", patience=3)
    module = problem.fit(plugin, Script([1, 2, 3, 4, 5, 6, 7], "error"), steps=16, num_sanity_val_steps=2)
    assert plugin.search == (1.0, 8, 1)
    module.trainer.validate(module, problem.validation, verbose=False)
    assert plugin.search == (1.0, 8, 1)


def test_logs_the_search(problem):
    problem.fit(EarlyStopping("val/error", patience=5), Script([3, 1, 2, 2], "error"), steps=30)
    assert problem.log.series("early/best_step")[0] == 8
    assert problem.log.series("early/best_step")[-1] == 16
    assert problem.log.series("early/best_value")[-1] == 1
    assert problem.log.series("early/waited")[-1] == 1


def test_goes_on_after_a_checkpoint(problem, weights, same, tmp_path):
    errors, path = [3, 1, 2, 2, 2, 2], tmp_path / "last.ckpt"
    whole = problem.fit(EarlyStopping("val/error", patience=3), Script(errors, "error"), steps=400, save=(path, 24))
    plugin = EarlyStopping("val/error", patience=3)
    resumed = problem.fit(plugin, Script(errors[3:], "error"), steps=400, resume=path)
    assert whole.steps_done == resumed.steps_done == 40 and plugin.best_step == 16
    assert same(weights(resumed), weights(whole))


def test_a_training_that_had_stopped_does_not_go_on(problem, tmp_path):
    def fit(errors, **arguments):
        return problem.fit(EarlyStopping("val/error", patience=1), Script(errors, "error"), steps=400, **arguments)

    path = tmp_path / "last.ckpt"
    assert fit([1, 2], save=(path, 16)).steps_done == 16
    assert fit([0, 0, 0], resume=path).steps_done == 16


def test_a_metric_that_is_not_there_is_an_error_that_names_the_others(problem):
    with pytest.raises(RecipeError, match="stopping.monitor=val/f1 is no metric of this run; there are: val/acc, val/loss"):
        problem.fit(EarlyStopping("val/f1"))


def test_needs_validation_data(problem):
    with pytest.raises(RecipeError, match="needs validation data"):
        problem.fit(EarlyStopping(), limit_val_batches=0)


def test_intervals():
    assert EarlyStopping(every_n_steps=7).trainer_arguments() == {"val_check_interval": 7, "check_val_every_n_epoch": None}
    assert EarlyStopping(every_n_epochs=3).trainer_arguments() == {"check_val_every_n_epoch": 3}
    assert EarlyStopping().trainer_arguments() == {}


# ------------------------------------------------------------------ beside real trainings


def test_the_algorithm_beside_a_training(tmp_path):
    """Replayed with its validation curve: the same stop, the same i*, the same θ*; also where an average is validated."""
    errors, i_star, stop = drawn()
    assert early_on_a_rank(tmp_path, errors) == [(stop, i_star, True)] * 2


def test_the_algorithm_beside_a_training_on_two_processes(tmp_path):
    errors, i_star, stop = drawn()
    assert on_ranks(2, early_on_a_rank, tmp_path, errors) == [[(stop, i_star, True)] * 2] * 2


ALL, RATE = 40, 0.3  # samples, in each step, and learning rate


def descended(make_trainer, x, y, steps, *plugins, **arguments):
    """w after steps of gradient descent on J = 1/n ‖Xw − y‖², whose Hessian is 2/n XᵀX, from w = 0."""
    model = torch.nn.Linear(x.shape[1], 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    module = RecipeModule(model, torch.nn.functional.mse_loss, partial(torch.optim.SGD, lr=RATE), standardize_targets=False)
    loaders = [DataLoader(TensorDataset(x, y), batch_size=ALL) for _ in range(2)]
    make_trainer(max_steps=steps, callbacks=[*plugins], num_sanity_val_steps=0, **arguments).fit(module, *loaders)
    return model.weight.detach().squeeze(0)


def stopped_after(make_trainer, x, y, tau):
    """w where validation is best after τ steps."""
    errors = [*range(tau, 0, -1), 7, 7, 7]
    plugin = EarlyStopping("val/error", patience=3, every_n_steps=1)
    w = descended(make_trainer, x, y, 99, plugin, Script(errors, "error"), **plugin.trainer_arguments())
    assert plugin.best_step == tau
    return w


def test_on_a_quadratic_error_it_is_the_l2_penalty(make_trainer):
    """Goodfellow et al., 7.8: (I − εΛ)^τ = (Λ + αI)⁻¹ α, with α in closed form where all curvatures are one λ."""
    tau, curvature = 5, float(np.random.default_rng().uniform(0.5, 1.5))
    x = torch.linalg.qr(torch.randn(ALL, 4, dtype=torch.float64))[0] * math.sqrt(ALL * curvature / 2)
    optimum = torch.randn(4, dtype=torch.float64)
    y = (x @ optimum).unsqueeze(1)
    left = (1 - RATE * curvature) ** tau
    alpha = curvature * left / (1 - left)
    early = stopped_after(make_trainer, x, y, tau)
    torch.testing.assert_close(early, (1 - left) * optimum)
    torch.testing.assert_close(early, descended(make_trainer, x, y, 120, L2Penalty(alpha)), rtol=1e-6, atol=1e-8)


def test_with_small_curvatures_the_steps_are_the_inverse_of_the_penalty(make_trainer):
    """Goodfellow et al., (7.44) and (7.45): α ≈ 1/(τε), and each direction of the Hessian shrinks by itself."""
    tau, curvatures = 6, torch.rand(4, dtype=torch.float64) * 0.04 + 0.01
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    x = torch.linalg.qr(torch.randn(ALL, 4, dtype=torch.float64))[0] * (ALL * curvatures / 2).sqrt() @ rotation.T
    optimum = torch.randn(4, dtype=torch.float64)
    early = rotation.T @ stopped_after(make_trainer, x, (x @ optimum).unsqueeze(1), tau)
    expected = rotation.T @ optimum
    torch.testing.assert_close(early, (1 - (1 - RATE * curvatures) ** tau) * expected)
    alpha = 1 / (tau * RATE)
    ridge = curvatures / (curvatures + alpha) * expected
    assert bool(((early - ridge).abs() <= tau * RATE * curvatures * ridge.abs()).all())
