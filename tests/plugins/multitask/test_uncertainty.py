import copy
from functools import partial

import pytest
import torch
from torch import nn

from plugins.base import Refusal, Selection, Setting, Task
from plugins.depth import LOG_VARIANCES, depths
from plugins.multitask._heads import split_head
from plugins.multitask.uncertainty import UncertaintyWeights, uncertainty_weights
from recipes.engine.groups import GroupRules, parameter_groups
from recipes.engine.module import RecipeModule
from tests.plugins.multitask.three_tasks import SETTING, STEP, TASKS, assert_one_task_is_plain, characters, fit, net

MIXED = (Task("alphabet", "classification", 5), Task("ink", "regression", 1))


def test_at_its_best_the_variance_is_the_loss_of_a_regression_and_twice_that_of_classes():
    losses = torch.rand(2).double() + 0.1
    log_variances = torch.stack([2 * losses[0], losses[1]]).log().requires_grad_()
    objective = uncertainty_weights(log_variances, MIXED) @ losses + 0.5 * log_variances.sum()
    (slope,) = torch.autograd.grad(objective, log_variances)
    torch.testing.assert_close(slope, torch.zeros(2).double(), atol=1e-12, rtol=0)
    variance = log_variances.detach().exp()
    torch.testing.assert_close(
        uncertainty_weights(log_variances.detach(), MIXED), torch.stack([1 / variance[0], 0.5 / variance[1]])
    )


def test_weights_of_a_regression_are_those_of_a_normal_density():
    deviation, error = torch.rand(()) + 0.5, torch.randn(9)
    weight = uncertainty_weights(deviation.square().log().view(1), MIXED[1:])
    density = torch.distributions.Normal(torch.zeros(()), deviation).log_prob(error)
    constant = 0.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(weight * error.square() + deviation.log(), -density - constant)


@pytest.mark.parametrize("parts", [1, 2])
def test_trains_as_written_out_without_decay_of_what_is_learned(parts):
    split = characters(torch.seed() % 2**32, STEP)  # one step an epoch, of all samples
    split.targets = {"alphabet": split.targets["alphabet"], "ink": split.x.float().mean((1, 2, 3)).div(25).unsqueeze(1)}

    class Own(RecipeModule):
        def __init__(self, model, loss, optimizer, **rest):
            def loss_of(output, target, reduction="mean"):
                kind = nn.functional.mse_loss if target.is_floating_point() else nn.functional.cross_entropy
                return kind(output, target, reduction=reduction)

            decayed = partial(torch.optim.SGD, lr=0.5, weight_decay=0.1)
            super().__init__(model, loss_of, decayed, standardize_targets=False, **rest)

    module = fit(net(), split, UncertaintyWeights(), parts=parts, tasks=MIXED, kind=Own)
    model = split_head(copy.deepcopy(net()), Setting((1, 28, 28), MIXED))
    log_variances, weights = torch.zeros(2, requires_grad=True), []
    for _ in range(3):
        outputs = model(split.x / 255)
        classes = nn.functional.cross_entropy(outputs["alphabet"], split.targets["alphabet"])
        numbers = nn.functional.mse_loss(outputs["ink"], split.targets["ink"])
        variance = log_variances.exp()
        total = classes / variance[0] + numbers / (2 * variance[1]) + variance.sqrt().log().sum()
        weights.append((1 / variance[0]).item())
        parameters = list(model.parameters())
        *gradients, slope = torch.autograd.grad(total, [*parameters, log_variances])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.data -= 0.5 * (gradient + 0.1 * parameter.data)
        log_variances.data -= 0.5 * slope
    found = module.model.state_dict()
    torch.testing.assert_close(found.pop(LOG_VARIANCES), log_variances.detach(), rtol=1e-4, atol=1e-5)
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)
    assert module.log.series("uncertainty/weight_alphabet") == pytest.approx(weights, rel=1e-4)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_task_without_a_known_label_in_a_step_keeps_its_weight(parts):
    """So does it where labels are known in one part of the step alone, which tells of the others what there is to tell."""
    split = characters(0, 2 * STEP)
    split.targets["drawer"][:] = -100

    def learned():
        return fit(net(), split, UncertaintyWeights(), parts=parts, steps=4, lr=0.1).model.state_dict()[LOG_VARIANCES]

    alphabet, drawer, even = learned().tolist()
    assert drawer == 0 and alphabet != 0 and even != 0
    split.targets["drawer"][::12] = 3
    assert learned()[1] != 0


def built(model, shape=(1, 28, 28)):
    plugin = UncertaintyWeights()
    plugin.prepare(Setting(shape, TASKS))
    return plugin.transform_model(model)


def test_what_is_learned_belongs_to_the_head():
    """So fine-tuning of the head alone, rates by layer and adaptive clipping leave it to learn."""
    model = built(net())
    depth = depths(model)
    assert depth[LOG_VARIANCES] == 0 and depth["1.weight"] > 0 and depths(built(nn.Linear(784, 5), (784,)))[LOG_VARIANCES] == 0


@pytest.mark.parametrize("no_decay", [(), ("bias", "norm")])
def test_only_what_is_learned_is_spared_the_decay(no_decay):
    model = built(net())
    groups = parameter_groups(model, GroupRules(no_decay), [UncertaintyWeights()])
    spared = {id(parameter) for group in groups if group.get("weight_decay") == 0.0 for parameter in group["params"]}
    wanted = {LOG_VARIANCES} | {name for name, _ in model.named_parameters() if no_decay and "bias" in name}
    assert spared == {id(parameter) for name, parameter in model.named_parameters() if name in wanted}


def test_refuses_steps_without_it_on_several_processes():
    plugin = UncertaintyWeights(when=(0.0, 0.5))
    plugin.check(Selection([plugin], SETTING))
    plugin.check(Selection([plugin], Setting((1, 28, 28), TASKS[:1]), devices=2))
    with pytest.raises(Refusal, match="leave `when` out, or train on one"):
        plugin.check(Selection([plugin], SETTING, devices=2))


def test_one_task_equals_the_plain_run_bit_for_bit():
    assert_one_task_is_plain(UncertaintyWeights)


@pytest.mark.slow  # the compiler takes seconds
def test_trains_compiled():
    eager, compiled = (
        fit(net(), characters(0), UncertaintyWeights(), kind=partial(RecipeModule, compile=compile))
        for compile in (False, True)
    )
    for parameter, expected in zip(compiled.model.parameters(), eager.model.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)
