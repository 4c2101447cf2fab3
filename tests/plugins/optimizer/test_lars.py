import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Refusal
from plugins.optimizer.lars import Lars
from tests.harness import build, config_of


@pytest.mark.parametrize(
    ("settings", "adapt"),
    [
        ({}, True),
        ({"weight_decay": 0.1}, True),
        ({"weight_decay": 0.0}, True),
        ({"weight_decay": 0.0, "always_adapt": False}, False),
    ],
)
def test_is_algorithm_1_of_you(option, start, gradients, settings, adapt):
    pytest.importorskip("timm")
    lars = option("lars", **settings)
    theta, v, expected = start.copy(), np.zeros_like(start), []
    for g in gradients:
        size, length = np.linalg.norm(theta), np.linalg.norm(g)
        local = lars.trust * size / (length + lars.weight_decay * size + lars.eps) if adapt else 1.0
        v = lars.momentum * v + lars.lr * local * (g + lars.weight_decay * theta)
        theta = theta - v
        expected.append(theta)
    np.testing.assert_allclose(lars.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-9, atol=1e-11)


def test_weights_of_zero_take_the_gradient_as_it_is(option, gradients):
    pytest.importorskip("timm")
    lars = option("lars")
    found = lars.run(np.zeros(7), lambda _, k: gradients[k], 1)
    np.testing.assert_allclose(found[0], -lars.lr * gradients[0])


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"momentum": 1.0}, {"trust": -1}, {"eps": -1}, {"weight_decay": -1}])
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Lars([nn.Parameter(torch.zeros(2))], **wrong)


def test_shards_are_refused():
    pytest.importorskip("timm")
    with pytest.raises(Refusal, match="optimizer/lars needs whole weights or gradients.*type trainer=ddp"):
        build(config_of(["optimizer/lars"], "trainer=fsdp"))
