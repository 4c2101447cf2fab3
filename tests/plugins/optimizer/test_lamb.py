import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Refusal, Selection, Setting
from plugins.finetuning.gradual import GradualUnfreezing
from plugins.optimizer.lamb import Lamb
from tests.harness import build, config_of


def follow(lamb, start, gradients, adapt=True):
    (beta1, beta2), theta, history = lamb.betas, start.copy(), []
    m, v = np.zeros_like(start), np.zeros_like(start)
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        step = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + lamb.eps) + lamb.weight_decay * theta
        ratio = np.linalg.norm(theta) / np.linalg.norm(step) if adapt else 1.0
        theta = theta - lamb.lr * ratio * step
        history.append(theta)
    return np.stack(history)


@pytest.mark.parametrize(
    ("settings", "adapt"),
    [
        ({}, True),
        ({"weight_decay": 0.0}, True),
        ({"weight_decay": 0.0, "always_adapt": False}, False),
        ({"always_adapt": False}, True),
    ],
)
def test_is_algorithm_2_of_you(option, start, gradients, settings, adapt):
    pytest.importorskip("timm")
    lamb = option("lamb", **settings)
    gradients = 10 * gradients  # longer than 1: it clips nothing
    expected = follow(lamb, start, gradients, adapt)
    np.testing.assert_allclose(lamb.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"betas": [0.9]}, {"eps": -1}, {"weight_decay": -1}])
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Lamb([nn.Parameter(torch.zeros(2))], **wrong)


def test_what_joins_late_needs_steps_of_a_set_length():
    """Averages that begin at 0 are divided by what belongs to the steps of all: the first steps are some three times as long."""
    pytest.importorskip("timm")
    selection = Selection([GradualUnfreezing()], Setting((4,), ()))
    group = {"params": [nn.Parameter(torch.zeros(2))]}
    for fine in (Lamb([group]), Lamb([group], weight_decay=0.0), Lamb([group], always_adapt=False)):
        fine.check(selection)
    bare = Lamb([group, {"params": [nn.Parameter(torch.zeros(1))], "weight_decay": 0.0}], always_adapt=False)
    bare.check(Selection([], Setting((4,), ())))
    with pytest.raises(Refusal, match="finetuning/gradual cannot be combined with optimizer.always_adapt=false"):
        bare.check(selection)


def test_shards_are_refused():
    pytest.importorskip("timm")
    with pytest.raises(Refusal, match="optimizer/lamb needs whole weights or gradients.*type trainer=ddp"):
        build(config_of(["optimizer/lamb"], "trainer=fsdp"))
