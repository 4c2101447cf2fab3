import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Refusal
from plugins.optimizer.adafactor import Adafactor
from tests.harness import build, config_of


def rms(x):
    return np.sqrt(np.mean(x**2))


def follow(adafactor, start, gradients):
    """Algorithms 4 (matrices) and 5 (vectors) of Shazeer & Stern, with ρ_t of algorithm 6 at most lr."""
    theta, history = start.copy(), []
    rows, columns, second = 0.0, 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        beta = 1 - t**-adafactor.decay
        if start.ndim == 2:
            rows = beta * rows + (1 - beta) * (g**2).sum(1)
            columns = beta * columns + (1 - beta) * (g**2).sum(0)
            second = np.outer(rows, columns) / rows.sum()
        else:
            second = beta * second + (1 - beta) * g**2
        step = g / np.sqrt(second)
        step = step / max(1.0, rms(step) / adafactor.clip)
        size = max(adafactor.eps, rms(theta)) * min(adafactor.lr, 1 / np.sqrt(t))
        theta = theta - adafactor.lr * adafactor.weight_decay * theta - size * step
        history.append(theta)
    return np.stack(history)


@pytest.mark.parametrize("shape", [(5,), (4, 6)])
@pytest.mark.parametrize("settings", [{}, {"decay": 0.5, "weight_decay": 0.1, "clip": 2.0}, {"lr": 0.4}, {"eps": 10.0}])
def test_is_the_algorithm_of_the_paper(option, shape, settings):
    adafactor = option("adafactor", **settings)
    draw = np.random.default_rng()
    start, gradients = draw.normal(size=shape), draw.normal(size=(20, *shape))
    found = adafactor.run(start, lambda _, k: gradients[k], len(gradients))
    np.testing.assert_allclose(found, follow(adafactor, start, gradients), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"weight_decay": -1}, {"decay": 2}, {"clip": 0.5}, {"eps": -1}])
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Adafactor([nn.Parameter(torch.zeros(2))], **wrong)


def test_shards_are_refused():
    with pytest.raises(Refusal, match="optimizer/adafactor needs whole weights or gradients.*type trainer=ddp"):
        build(config_of(["optimizer/adafactor"], "trainer=fsdp"))
