import pytest
import torch
from sklearn.metrics import mean_absolute_error

from plugins.metric.mae import MeanAbsoluteError
from tests.measured import measured


@pytest.mark.parametrize("columns", [1, 3])
def test_equals_scikit_learn(columns):
    y = 1e6 + torch.randn(200, columns)
    predicted = y + torch.randn(200, columns)
    expected = mean_absolute_error(y.double().flatten(), predicted.double().flatten())
    assert measured(MeanAbsoluteError(), predicted, y if columns > 1 else y[:, 0]) == pytest.approx(expected, rel=1e-6)
