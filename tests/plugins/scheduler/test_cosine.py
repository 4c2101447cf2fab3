import math

import numpy as np
import pytest
from torch.optim.lr_scheduler import CosineAnnealingLR

from plugins.scheduler.cosine import CosineDecay


def test_is_the_formula(make_optimizer, rates):
    optimizer = make_optimizer(rates=(0.3, 0.1))
    got = rates(optimizer, CosineDecay(end_factor=0.1)(optimizer, 16), 30)
    expected = [0.03 + (0.3 - 0.03) * (1 + math.cos(math.pi * min(1, k / 16))) / 2 for k in range(30)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.01)


def test_equals_torch_until_the_end(make_optimizer, rates):
    ours, torchs = make_optimizer(), make_optimizer()
    expected = rates(torchs, CosineAnnealingLR(torchs, T_max=20), 21)
    np.testing.assert_allclose(rates(ours, CosineDecay(steps=20)(ours, 500), 21), expected, rtol=1e-9, atol=1e-12)


def test_holds_the_end_where_torch_would_rise_again(make_optimizer, rates):
    optimizer = make_optimizer()
    assert rates(optimizer, CosineDecay()(optimizer, 10), 25)[10:] == [0.0] * 15
