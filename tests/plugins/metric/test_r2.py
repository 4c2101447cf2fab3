import math

import pytest
import torch
from sklearn.metrics import r2_score

from plugins.metric.r2 import R2
from tests.measured import measured


@pytest.mark.parametrize("far", [0.0, 1e5])
@pytest.mark.parametrize("columns", [1, 3])
def test_equals_scikit_learn_wherever_the_targets_lie(columns, far):
    y = far + torch.randn(200, columns)
    predicted = y + 0.5 * torch.randn(200, columns)
    assert measured(R2(), predicted, y if columns > 1 else y[:, 0]) == pytest.approx(
        r2_score(y.double(), predicted.double()), abs=1e-6
    )


def test_is_none_where_the_targets_do_not_differ():
    assert math.isnan(measured(R2(), torch.randn(100, 1), torch.ones(100)))
