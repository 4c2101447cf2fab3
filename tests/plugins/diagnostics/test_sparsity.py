import numpy as np
import pytest
from torch import nn

from plugins.diagnostics.sparsity import Sparsity, zeros
from plugins.regularizer.l1 import L1Penalty


def test_counts_weights_up_to_a_value():
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    model[0].weight.data[0] = 0
    flat = [layer.weight.detach().numpy() for layer in model]
    for below in (0.0, 0.2):
        found = zeros(model, below)
        for name, values in {"0": flat[0].ravel(), "1": flat[1].ravel(), "": np.concatenate([v.ravel() for v in flat])}.items():
            assert float(found[name]) == pytest.approx((np.abs(values) <= np.float32(below)).mean())


def test_sees_the_zeros_that_a_proximal_penalty_makes(problem):
    module = problem.fit(Sparsity(every_n_steps=2), L1Penalty(0.5, proximal=True))
    weights = np.concatenate([module.model[layer].weight.detach().numpy().ravel() for layer in (0, 3)])
    assert 0 < (weights == 0).mean() == pytest.approx(problem.log.series("sparsity/zeros")[-1])
    assert len(problem.log.series("sparsity/0_zeros")) == 5
