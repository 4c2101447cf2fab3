import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from plugins.base import Refusal, Selection, Setting, Task, declared_directions, larger_is_better
from plugins.diagnostics.calibration import Calibration, errors, line


def of_validation(problem, module):
    """Probabilities and labels of the validation split."""
    x, y = problem.validation.dataset.tensors
    with torch.no_grad():
        return module.model.eval()(x).softmax(1), y


def test_equals_torchmetrics_after_each_validation(problem):
    plugin = Calibration(bins=10)
    module = problem.fit(plugin, steps=8)
    p, y = of_validation(problem, module)
    (found,) = problem.log.series("calibration/ece")
    assert found == pytest.approx(float(multiclass_calibration_error(p, y, 3, n_bins=10)), abs=1e-6)
    expected = float(multiclass_calibration_error(p, y, 3, n_bins=10, norm="max"))
    assert problem.log.series("calibration/mce") == [pytest.approx(expected, abs=1e-6)]
    confidence, right = p.max(1).values, p.argmax(1) == y
    over = float((confidence - right.float()).mean())
    assert problem.log.series("calibration/overconfidence") == [pytest.approx(over, abs=1e-6)]


def test_draws_what_it_has_counted_and_keeps_it(problem):
    plugin = Calibration(bins=5)
    p, y = of_validation(problem, problem.fit(plugin))
    (panel,) = plugin.drawing()
    x, shares = panel.points["predictions"]
    confidence, right = p.max(1).values.numpy(), (p.argmax(1) == y).numpy()
    place = np.digitize(confidence, np.linspace(0, 1, 6)[1:-1], right=True)
    np.testing.assert_allclose(x, [confidence[place == b].mean() for b in np.unique(place)], rtol=1e-5)
    np.testing.assert_allclose(shares, [right[place == b].mean() for b in np.unique(place)])
    other = Calibration(bins=5)
    other.load_state_dict(plugin.state_dict())
    assert other.drawing() == plugin.drawing()


def test_bins_without_a_prediction_count_for_nothing():
    bins = {"samples": [0, 4, 0, 6], "right": [0, 1, 0, 6], "sums": [0.0, 2.0, 0.0, 5.4]}
    assert line(bins) == ([0.5, pytest.approx(0.9)], [0.25, 1.0])
    assert errors(bins) == pytest.approx({"ece": (1 + 0.6) / 10, "mce": 0.25, "overconfidence": (2 + 5.4 - 7) / 10})
    assert errors({"samples": [0], "right": [0], "sums": [0.0]}) == {}


def test_a_regression_is_refused():
    setting = Setting((4,), (Task("", "regression", 1),))
    with pytest.raises(Refusal, match="a regression predicts none: leave it out"):
        Calibration().check(Selection([], setting))


def test_a_signed_number_is_best_neither_at_its_largest_nor_at_its_smallest():
    """So that a run that is to choose by it asks."""
    declared = declared_directions([Calibration()])
    assert larger_is_better("val/calibration/overconfidence", declared) is None
    assert larger_is_better("val/calibration/ece", declared) is False
