import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from plugins.errors import RecipeError
from recipes.run.build import build_data
from recipes.run.process import set_up_process
from recipes.run.tuning.rate import HIGHEST, LOWEST, STEPS, find_rate, nearest, rising, smooth, steepest


def test_rates_rise_by_equal_factors_and_groups_keep_their_ratio():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.05}], lr=0.5)
    schedule = rising(1e-4, 1.0, 9, configured=0.5)(optimizer, 9)
    seen = []
    for _ in range(9):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert [first for first, _ in seen] == pytest.approx(np.geomspace(1e-4, 1.0, 9))
    assert [second / first for first, second in seen] == pytest.approx([0.1] * 9)


def test_losses_are_averaged_with_those_beside_them():
    values = np.random.randn(30)
    padded = [values[max(0, place - 3) : place + 4].mean() for place in range(30)]
    assert smooth(list(values)) == pytest.approx(padded)
    line = list(np.arange(30.0))
    assert smooth(line)[3:-3] == pytest.approx(line[3:-3])  # which shifts nothing


def test_the_steepest_place_is_that_of_the_largest_slope_before_the_lowest():
    places = np.linspace(-4, 4, 200)
    falling = 1 / (1 + np.exp(3 * (places + 1)))  # steepest at -1
    rising_again = np.where(places > 2, (places - 2) ** 2, 0.0)
    found = steepest(list(falling + rising_again))
    assert abs(places[found] + 1) < 0.1
    assert steepest(list(np.linspace(1, 2, 50))) is None
    assert steepest([]) is None and steepest([1.0, 0.5]) is None
    assert nearest([0.001, 0.01, 0.1], 0.02) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_on_a_quadratic_the_rate_is_below_that_at_which_it_diverges(tmp_path, optimizer):
    """Gradient descent on the mean squared error of a line diverges above 2 / (largest curvature)."""
    x = np.random.randn(400, 6).astype("float32")
    np.savez(tmp_path / "line.npz", x=x, y=x @ np.arange(1.0, 7.0, dtype="float32"))
    config = composed("data=npz", f"data.path={tmp_path / 'line.npz'}", "model=linear", f"optimizer={optimizer}")
    data = prepared(config)
    rate, curve = find_rate(config, tmp_path / "run", data, 1)
    curvature = 2 * np.linalg.eigvalsh(np.corrcoef(x.T))[-1]  # inputs and targets are standardized
    assert LOWEST < rate < (1.2 * 2 / curvature if optimizer == "sgd" else HIGHEST)
    assert len(curve) <= STEPS and curve[0][0] == LOWEST and all(math.isfinite(loss) for _, loss in curve)
    assert min(loss for _, loss in curve) < 0.9 * curve[0][1]


def test_nothing_of_it_is_left(tmp_path):
    config = composed("+averaging=ema", "+regularizer=dropout", "scheduler=cosine", "+stopping=early", "+guard=nan_rollback")
    data, before = prepared(config), torch.get_rng_state()
    first = find_rate(config, tmp_path / "run", data, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert find_rate(config, tmp_path / "run", data, 1) == first
    assert not list(tmp_path.iterdir())


def test_without_a_rate_to_start_from(tmp_path):
    config = composed("optimizer.lr=0")
    with pytest.raises(RecipeError, match="type optimizer.lr=0.001, got 0"):
        find_rate(config, tmp_path, prepared(config), 1)


def composed(*words):
    from recipes.config.catalogue import Catalogue
    from recipes.config.composing import compose, finish

    words = ["logger=[]", "trainer.progress=false", "trainer.accelerator=cpu", *words]
    return finish(Catalogue(), compose(words), words)


def prepared(config):
    set_up_process(config)
    data = build_data(config)
    data.setup()
    return data
