import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from plugins.optimizer.lion import Lion


def test_is_algorithm_2_of_chen(option, start, gradients):
    pytest.importorskip("timm")
    lion = option("lion")
    (beta1, beta2), theta, m, expected = lion.betas, start.copy(), np.zeros_like(start), []
    for g in gradients:
        theta = theta - lion.lr * (np.sign(beta1 * m + (1 - beta1) * g) + lion.weight_decay * theta)
        m = beta2 * m + (1 - beta2) * g
        expected.append(theta)
    np.testing.assert_allclose(lion.run(start, lambda _, k: gradients[k], len(gradients)), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"betas": [0.9]}, {"betas": [0.9, 1.0]}, {"weight_decay": -1}])
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Lion([nn.Parameter(torch.zeros(2))], **wrong)
