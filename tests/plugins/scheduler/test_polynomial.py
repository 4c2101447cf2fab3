import numpy as np
import pytest
from torch.optim.lr_scheduler import PolynomialLR

from plugins.scheduler.linear import LinearDecay
from plugins.scheduler.polynomial import PolynomialDecay


@pytest.mark.parametrize("power", [0.5, 0.9, 2.0])
def test_equals_torch(make_optimizer, rates, power):
    ours, torchs = make_optimizer(), make_optimizer()
    expected = rates(torchs, PolynomialLR(torchs, 20, power), 30)
    np.testing.assert_allclose(rates(ours, PolynomialDecay(power)(ours, 20), 30), expected, rtol=1e-6, atol=1e-12)


def test_the_power_of_one_is_a_line_to_the_end(make_optimizer, rates):
    ours, line = make_optimizer(), make_optimizer()
    expected = rates(line, LinearDecay(0.1)(line, 12), 20)
    np.testing.assert_allclose(rates(ours, PolynomialDecay(1.0, 0.1)(ours, 12), 20), expected, rtol=1e-12)
