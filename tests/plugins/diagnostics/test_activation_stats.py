import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting, Task
from plugins.diagnostics.activation_stats import ActivationStats, alive, some_of, statistics


def test_statistics_equal_numpy():
    h = torch.randn(6, 5).mul(3).tanh()
    h[2] = 0
    values = h.numpy().astype(np.float64)
    near = (np.minimum(values + 1, 1 - values) <= 0.05 * 2).sum()
    expected = [values.size, values.sum(), (values**2).sum(), (values == 0).sum(), near]
    np.testing.assert_allclose(statistics(h, (-1.0, 1.0), 0.05), expected, rtol=1e-4)
    assert statistics(h, None, 0.05)[4] == 0


@pytest.mark.parametrize(("shape", "units"), [((4, 5), -1), ((4, 3, 5), -1), ((4, 5, 3, 2), 1)])
def test_a_unit_is_dead_if_it_is_zero_for_all_samples_and_places(shape, units):
    h = torch.rand(shape) + 0.1
    h.movedim(units, 0)[1] = 0
    h.movedim(units, 0)[3].flatten()[1:] = 0
    rows = [h.numpy().take(unit, axis=units) for unit in range(5)]
    np.testing.assert_array_equal(alive(h, units).numpy(), [bool((row != 0).any()) for row in rows])
    assert not alive(h, units)[1]


@pytest.mark.parametrize(("number", "kept"), [(10, 10), (16, 12), (5, 4), (1, 1)])
def test_some_values_are_spread_evenly(number, kept):
    found = some_of(torch.arange(12.0).view(3, 4), number)
    known = found[found.isfinite()].numpy()
    assert len(found) == number and len(known) <= kept and set(known) <= set(range(12))
    assert number < 12 or list(known) == list(range(12))


def tanh_net(std, layers=5, width=200):
    """The net of the lecture: tanh layers with weights of a deviation."""
    linear = [nn.Linear(width, width, bias=False) for _ in range(layers)]
    for layer in linear:
        nn.init.normal_(layer.weight, std=std)
    return nn.Sequential(*(each for layer in linear for each in (layer, nn.Tanh())), nn.Linear(width, 2))


@pytest.mark.parametrize("std", [0.01, 1.0, 200**-0.5])
def test_tells_what_the_lecture_tells_of_initial_weights(std):
    """Too small: activations become zero. Too large: almost all are saturated. 1/√n: neither."""
    h, deviations = torch.randn(300, 200), []
    with torch.no_grad():
        for layer in tanh_net(std)[:-1]:
            h = layer(h)
            if isinstance(layer, nn.Tanh):
                n, total, squares, _, near = statistics(h, (-1.0, 1.0), 0.01)
                deviations.append(float((squares / n - (total / n) ** 2).sqrt()))
                saturated = float(near / n)
    assert (deviations[-1] < 1e-3) == (std == 0.01)
    assert (saturated > 0.8) == (std == 1.0)
    assert std in (0.01, 1.0) or (saturated < 0.01 and deviations[-1] > 0.25)


def test_logs_the_activations_that_are_trained_on(problem):
    plugin = ActivationStats(every_n_steps=4)
    problem.fit(plugin)
    model, (x, _) = problem.copy().train(), problem.batches[0]
    h = model[:3](x).detach().numpy().astype(np.float64)
    row = next(row for row in problem.log.rows if "activation_stats/2_mean" in row)
    assert row["at"] == 1 and row["activation_stats/dead"] == 0
    expected = {"mean": h.mean(), "std": h.std(), "zeros": 0.0, "dead": 0.0, "saturated": (np.abs(h) >= 0.98).mean()}
    assert {name: row[f"activation_stats/2_{name}"] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    low, high, counts = next(h for h in problem.log.histograms if "activation_stats/2" in h)["activation_stats/2"].read()
    np.testing.assert_allclose([low, high], [h.min(), h.max()], rtol=1e-5)
    assert sum(counts) == h.size
    assert [row["at"] for row in problem.log.rows if "activation_stats/2_mean" in row] == [1, 4, 8]


def test_nothing_is_kept_of_steps_that_it_does_not_look_at(problem):
    """Hooks and copies cost a small model more than the look itself."""

    class Spying(ActivationStats):
        kept: list[int]

        def penalty(self, module, batch, outputs):
            self.kept.append(sum(map(len, module.recorded.values())))
            return super().penalty(module, batch, outputs)

    plugin = Spying(every_n_steps=3)
    plugin.kept = []
    problem.fit(plugin)
    assert (
        plugin.kept == [1 if step == 1 or step % 3 == 0 else 0 for step in range(1, len(plugin.kept) + 1)]
        and sum(plugin.kept) > 2
    )


def test_what_a_module_hides_is_told():
    plugin = ActivationStats()
    plugin.prepare(Setting((6,), (Task("", "classification", 3),)))
    with pytest.raises(RecipeError, match="no activation in Linear"):
        plugin.transform_model(nn.Linear(6, 3))
