from functools import partial

import pytest
import torch
from torch import nn

from plugins.averaging.swa import SWA
from plugins.diagnostics.lr import LearningRates, names_of_groups
from plugins.guard.nan_rollback import NaNRollback
from tests.plugins.guard.test_nan_rollback import poisoned


def groups(model, *names):
    return [{"params": [model.get_parameter(name) for name in group]} for group in names]


MODEL = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ([["0.0.weight", "0.0.bias", "1.weight"]], ["model"]),
        ([["0.0.weight", "0.0.bias", "0.1.weight"], ["1.weight", "1.bias"]], ["0", "1"]),
        ([["0.0.weight", "1.weight"], ["0.0.bias", "0.1.weight", "1.bias"]], ["model_weight", "model_bias_norm"]),
        ([["1.weight"], ["1.bias"], ["0.0.weight"]], ["1_weight", "1_bias", "0.0"]),
        ([["0.0.weight"], ["1.weight", "0.1.weight"], ["1.bias", "0.1.bias"]], ["0.0", "model_weight_norm", "model_bias_norm"]),
    ],
)
def test_groups_have_the_names_of_their_modules(parts, names):
    assert names_of_groups(MODEL, groups(MODEL, *parts)) == names


def test_equal_groups_are_numbered():
    model = nn.ParameterList([torch.ones(2), torch.ones(2)])
    assert names_of_groups(model, [{"params": [each]} for each in model]) == ["model_bias_0", "model_bias_1"]


def test_logs_the_rate_by_which_each_update_was_made(problem):
    schedule = lambda optimizer, steps: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)  # noqa: E731
    problem.fit(LearningRates(every_n_steps=1), scheduler=schedule, steps=6)
    assert problem.log.series("lr/model") == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


def test_each_layer_has_its_rate(problem):
    def optimizer(groups):
        (group,) = groups
        rates = [{"params": group["params"][:2], "lr": 0.3}, {"params": group["params"][2:], "lr": 0.1}]
        return torch.optim.SGD(rates)

    problem.fit(LearningRates(every_n_steps=4), optimizer=partial(optimizer))
    assert problem.log.series("lr/0") == pytest.approx([0.3] * 3) and problem.log.series("lr/model") == pytest.approx([0.1] * 3)


def test_the_rate_of_an_average_and_that_before_a_rollback(problem):
    """Both are changed after the update: the schedule gets its own back, a guard lowers it."""
    problem.fit(LearningRates(every_n_steps=1), SWA(start=0.5, lr=0.02), steps=6)
    assert problem.log.series("lr/model") == pytest.approx([0.1] * 3 + [0.02] * 3)
    problem.fit(LearningRates(every_n_steps=1), NaNRollback(lr_factor=0.5), loader=poisoned(problem, 3), steps=5)
    assert problem.log.series("lr/model")[-5:] == pytest.approx([0.1] * 3 + [0.05] * 2)


def test_groups_without_a_rate_are_left_out(problem):
    module = problem.fit(steps=1)
    plugin, optimizer = LearningRates(every_n_steps=1), torch.optim.SGD(module.model.parameters(), lr=0.1)
    seen = []
    plugin.record = lambda module, name, value, **how: seen.append((name, value))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.3})
    optimizer.param_groups[0]["lr"] = None
    plugin.after_step(module, optimizer)
    assert [value for _, value in seen] == [0.3]
    del optimizer.param_groups[1]["lr"]
    plugin.after_step(module, optimizer)
    assert len(seen) == 1
