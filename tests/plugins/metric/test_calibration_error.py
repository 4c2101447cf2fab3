import numpy as np
import pytest
import torch

from plugins.base import RecipeError, Task
from plugins.counting import Reliability, outcomes
from plugins.diagnostics.calibration import errors
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


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_the_last_bin_holds_1(norm):
    """As that of diagnostics=calibration does: of wrong predictions of probability 1, and right ones of σ(3.5), both in [14/15, 1]."""
    outputs, labels = torch.tensor([[40.0, 0.0], [3.5, 0.0]]).repeat(40, 1), torch.tensor([1, 0]).repeat(40)
    assert outputs.softmax(1).max() == 1
    found = measured(CalibrationError(norm=norm), outputs, labels, 2)
    assert found == pytest.approx((1 + torch.tensor(3.5).sigmoid().item()) / 2 - 0.5, abs=1e-6)
    counts = Reliability(outputs.device, 15)
    counts.add(*outcomes(Task("", "classification", 2), outputs, labels))
    assert found == pytest.approx(errors(counts.compute())["mce" if norm == "max" else "ece"], abs=1e-6)
