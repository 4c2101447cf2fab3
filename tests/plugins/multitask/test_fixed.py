import copy
from functools import partial

import pytest
import torch
from torch import nn

from plugins.base import Batch, RecipeError, Refusal, Selection, Setting
from plugins.multitask._heads import split_head
from plugins.multitask.fixed import FixedWeights
from recipes.engine.module import RecipeModule
from tests.plugins.multitask.three_tasks import SETTING, STEP, TASKS, assert_one_task_is_plain, characters, fit, net

WEIGHTS = {"alphabet": 0.3, "even": 2}  # and drawer 1


@pytest.mark.parametrize("parts", [1, 3])
def test_trains_as_written_out(parts):
    split = characters(torch.seed() % 2**32, STEP)  # one step an epoch, of all samples
    module = fit(net(), split, FixedWeights(WEIGHTS), parts=parts)
    model = split_head(copy.deepcopy(net()), SETTING)
    for _ in range(3):
        outputs = model(split.x / 255)
        losses = {task.name: nn.functional.cross_entropy(outputs[task.name], split.targets[task.name]) for task in TASKS}
        total = 0.3 * losses["alphabet"] + losses["drawer"] + 2 * losses["even"]
        parameters = list(model.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
            parameter.data -= 0.5 * gradient
    for trained, expected in zip(module.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-5)
    for task, weight in {"drawer": 1.0, **WEIGHTS}.items():
        assert module.log.series(f"fixed/weight_{task}") == pytest.approx([weight] * 3)
    assert len(module.log.series("fixed/gradient_cosine")) == 1


def test_without_weights_it_is_the_sum():
    from plugins.multitask.equal import EqualWeights

    split = characters(0)
    plain, given = (fit(net(), split, plugin).model.state_dict() for plugin in (EqualWeights(), FixedWeights()))
    assert all(torch.equal(value, given[key]) for key, value in plain.items())


@pytest.mark.parametrize("wrong", [{}, [1, 2], {"alphabet": -1}, {"alphabet": True}, {"alphabet": float("inf")}, 2.0])
def test_refuses_what_are_no_weights(wrong):
    with pytest.raises(RecipeError, match="weights must be a mapping of tasks to finite numbers ≥ 0"):
        FixedWeights(wrong)


def test_refuses_weights_of_what_is_no_task_and_none_at_all():
    def check(weights):
        plugin = FixedWeights(weights)
        plugin.check(Selection([plugin], SETTING))

    with pytest.raises(Refusal, match="names colour, size, and the targets are alphabet, drawer, even"):
        check({"alphabet": 1, "colour": 2, "size": 1})
    with pytest.raises(Refusal, match="is 0 for all of alphabet, drawer, even: give one of them a weight above 0"):
        check({"alphabet": 0, "drawer": 0.0, "even": 0})
    check({"alphabet": 0, "drawer": 0})


def test_one_task_equals_the_plain_run_bit_for_bit():
    assert_one_task_is_plain(lambda: FixedWeights({"drawer": 3.0}))
    plugin = FixedWeights({"other": 3.0})
    plugin.check(Selection([plugin], Setting((1, 28, 28), TASKS[:1])))


def test_the_cosine_is_of_losses_that_make_up_for_how_often_a_sample_is_drawn(monkeypatch):
    plugin, split, found = FixedWeights(), characters(1, 8), []
    module = RecipeModule(net(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.1))
    module.build([plugin], SETTING, devices=1)
    monkeypatch.setattr(plugin, "record", lambda module, name, value, at_once: found.append(value))
    drawn, correction = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0, 1.0])
    for index, factor in ((drawn, correction), (torch.arange(3), None)):
        targets = {task: labels[index] for task, labels in split.targets.items()}
        batch = Batch(split.x[index] / 255, targets, targets, correction=factor)
        plugin.penalty(module, batch, module.outputs(batch.x))
    torch.testing.assert_close(*found)
