import numpy as np
import pytest
from torch.optim.lr_scheduler import ExponentialLR

from plugins.base import RecipeError
from plugins.scheduler.exponential import ExponentialDecay


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.02])
def test_equals_torch(make_optimizer, rates, factor):
    ours, torchs = make_optimizer(), make_optimizer()
    expected = rates(torchs, ExponentialLR(torchs, factor), 30, 1)
    np.testing.assert_allclose(rates(ours, ExponentialDecay(factor)(ours, 0), 30, 1), expected, rtol=1e-9)


def test_refuses_a_factor_of_zero():
    with pytest.raises(RecipeError, match="^factor must be a number > 0"):
        ExponentialDecay(0.0)
