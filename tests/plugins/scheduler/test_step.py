import numpy as np
import pytest
from torch.optim.lr_scheduler import StepLR

from plugins.scheduler.step import StepDecay


@pytest.mark.parametrize(("every", "factor"), [(1, 0.9), (4, 0.5), (7, 1.2), (100, 0.1)])
@pytest.mark.parametrize("group", [0, 1])
def test_equals_torch(make_optimizer, rates, every, factor, group):
    ours, torchs = make_optimizer(), make_optimizer()
    expected = rates(torchs, StepLR(torchs, every, factor), 30, group)
    np.testing.assert_allclose(rates(ours, StepDecay(every, factor)(ours, 10), 30, group), expected, rtol=1e-9)


def test_needs_no_end(make_optimizer, rates):
    optimizer = make_optimizer()
    got = rates(optimizer, StepDecay(2, 0.5)(optimizer, 0), 5)
    np.testing.assert_allclose(got, [0.3, 0.3, 0.15, 0.15, 0.075], rtol=1e-12)
