import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Refusal
from plugins.optimizer.soap import SOAP
from tests.harness import build, config_of


def eigenvectors(matrix):
    """The largest first; signs are free, and make no difference to a step."""
    return np.linalg.eigh(matrix)[1][:, ::-1]


def follow(soap, start, gradients):
    """Algorithm 3 of Vyas et al. for a matrix, with the first gradient for the first eigenvectors alone."""
    (beta1, beta2), theta, history = soap.betas, start.copy(), [start]
    sides = [(1 - beta2) * gradients[0] @ gradients[0].T, (1 - beta2) * gradients[0].T @ gradients[0]]
    left, right = map(eigenvectors, sides)
    m, v = np.zeros_like(start), np.zeros_like(start)
    for t, g in enumerate(gradients[1:], start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (left.T @ g @ right) ** 2
        rate = soap.lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        theta = theta - rate * left @ (left.T @ m @ right / (np.sqrt(v) + soap.eps)) @ right.T
        theta = theta - soap.lr * soap.weight_decay * theta
        sides = [beta2 * side + (1 - beta2) * new for side, new in zip(sides, (g @ g.T, g.T @ g), strict=True)]
        if t % soap.every == 0:
            first, second = (np.argsort(-np.diag(q.T @ s @ q)) for q, s in zip((left, right), sides, strict=True))
            v = v[first][:, second]
            left, right = (np.linalg.qr(s @ q[:, o])[0] for s, q, o in zip(sides, (left, right), (first, second), strict=True))
        history.append(theta)
    return np.stack(history)


@pytest.mark.parametrize("settings", [{"every": 100}, {"every": 3}, {"every": 1, "weight_decay": 0.0, "betas": [0.9, 0.8]}])
def test_is_adam_in_the_eigenvectors(option, settings):
    pytest.importorskip("pytorch_optimizer")
    soap = option("soap", **settings)
    draw = np.random.default_rng()
    start, gradients = draw.normal(size=(4, 3)), draw.normal(size=(9, 4, 3))
    found = soap.run(start, lambda _, k: gradients[k], len(gradients))
    np.testing.assert_allclose(found, follow(soap, start, gradients), rtol=1e-3, atol=2e-5)  # it decomposes in 32 bits


def test_a_bias_is_trained_by_adam_from_the_second_step_on(option, start, gradients):
    pytest.importorskip("pytorch_optimizer")
    soap = option("soap")
    found = soap.run(start, lambda _, k: gradients[k], len(gradients))
    adamw = option("adamw", lr=soap.lr, betas=soap.betas, weight_decay=0.0)
    np.testing.assert_array_equal(found[0], start)
    without = option("soap", weight_decay=0.0).run(start, lambda _, k: gradients[k], len(gradients))
    expected = adamw.run(start, lambda _, k: gradients[k + 1], len(gradients) - 1)
    np.testing.assert_allclose(without[1:], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "wrong", [{"lr": -1}, {"betas": [0.9]}, {"eps": -1}, {"weight_decay": -1}, {"every": 0}, {"largest": 0}]
)
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        SOAP([nn.Parameter(torch.zeros(2))], **wrong)


def test_shards_are_refused():
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(Refusal, match="optimizer/soap needs whole weights or gradients.*type trainer=ddp"):
        build(config_of(["optimizer/soap"], "trainer=fsdp"))
