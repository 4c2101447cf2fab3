from functools import partial

import pytest
import torch
from torch import nn

from plugins.diagnostics.lr import LearningRates, names_of_groups


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
