import numpy as np
import pytest

from plugins.base import RecipeError
from plugins.metric.calibration_error import CalibrationError
from tests.measured import drawn, measured


def written_out(p, labels, bins, norm):
    confidence, right = p.max(1), p.argmax(1) == labels
    gaps, shares = [], []
    for low in range(bins):
        inside = (confidence > low / bins) & (confidence <= (low + 1) / bins)
        if inside.any():
            gaps.append(abs(right[inside].mean() - confidence[inside].mean()))
            shares.append(inside.mean())
    gaps, shares = np.array(gaps), np.array(shares)
    return {"l1": (gaps * shares).sum(), "l2": np.sqrt((gaps**2 * shares).sum()), "max": gaps.max()}[norm]


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize(("classes", "bins"), [(2, 15), (5, 15), (5, 7)])
def test_equals_the_equation(classes, bins, norm):
    outputs, labels = drawn(classes)
    expected = written_out(outputs.double().softmax(1).numpy(), labels.numpy(), bins, norm)
    assert measured(CalibrationError(bins, norm), outputs, labels, classes) == pytest.approx(expected, abs=1e-6)


def test_refuses():
    with pytest.raises(RecipeError, match="bins must be a whole number ≥ 1"):
        CalibrationError(bins=0)
    with pytest.raises(RecipeError, match="norm must be one of l1, l2, max"):
        CalibrationError(norm="linf")
