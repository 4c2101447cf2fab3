import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from plugins.optimizer.adan import Adan


def test_is_algorithm_1_of_xie_with_averages_corrected_for_their_start(option, start, gradients):
    pytest.importorskip("timm")
    adan = option("adan")
    (beta1, beta2, beta3), theta, expected = adan.betas, start.copy(), []
    m, v, n, before = np.zeros_like(start), np.zeros_like(start), np.zeros_like(start), gradients[0]
    for t, g in enumerate(gradients, start=1):
        change, before = g - before, g
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * change
        n = beta3 * n + (1 - beta3) * (g + beta2 * change) ** 2
        rate = adan.lr / (np.sqrt(n / (1 - beta3**t)) + adan.eps)
        theta = theta - rate * (m / (1 - beta1**t) + beta2 * v / (1 - beta2**t))
        theta = theta / (1 + adan.lr * adan.weight_decay)
        expected.append(theta)
    np.testing.assert_allclose(adan.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "wrong", [{"lr": -1}, {"betas": [0.9, 0.9]}, {"betas": [0.9, 0.9, 1.0]}, {"eps": -1}, {"weight_decay": -1}]
)
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Adan([nn.Parameter(torch.zeros(2))], **wrong)
