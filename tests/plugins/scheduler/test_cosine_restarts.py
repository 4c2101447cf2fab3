import numpy as np
import pytest
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from plugins.scheduler.cosine_restarts import CosineRestarts, since_restart


@pytest.mark.parametrize(("period", "factor"), [(1, 1), (7, 1), (4, 2), (3, 3)])
def test_equals_torch(make_optimizer, rates, period, factor):
    ours, torchs = make_optimizer(), make_optimizer()
    expected = rates(torchs, CosineAnnealingWarmRestarts(torchs, period, factor), 40)
    np.testing.assert_allclose(rates(ours, CosineRestarts(period, factor)(ours, 0), 40), expected, rtol=1e-9, atol=1e-12)


def test_waves_need_not_be_a_multiple_as_long(make_optimizer, rates):
    starts = [step for step in range(60) if since_restart(step, 4, 1.5)[0] == 0]
    assert starts == [0, 4, 10, 19, 33, 53]  # of 4, 6, 9, 13.5 and 20.25 steps
    optimizer = make_optimizer()
    got = rates(optimizer, CosineRestarts(4, 1.5, 0.1)(optimizer, 0), 54)
    assert [got[step] for step in starts] == [pytest.approx(0.3)] * 6 and min(got) > 0.03
