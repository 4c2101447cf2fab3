import numpy as np
import pytest
from torch import nn

from plugins.diagnostics._layers import layer_of
from plugins.diagnostics.weight_norm import WeightNorm, norms


def test_equals_numpy_and_leaves_out_biases_and_norm_layers():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.LSTM(4, 2)))
    found = norms(model)
    assert list(found) == ["0", "2.0", ""]
    recurrent = np.concatenate([w.detach().numpy().ravel() for w in (model[2][0].weight_ih_l0, model[2][0].weight_hh_l0)])
    first = model[0].weight.detach().numpy().ravel()
    for layer, values in {"0": first, "2.0": recurrent, "": np.concatenate([first, recurrent])}.items():
        assert float(found[layer]) == pytest.approx(np.linalg.norm(values), rel=1e-5)


def test_a_model_without_weights_has_none():
    assert norms(nn.BatchNorm1d(3)) == {}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("weight", "model"),
        ("a.1.bias", "a.1"),
        ("a.parametrizations.weight.original0", "a"),
        ("parametrizations.weight.original", "model"),
    ],
)
def test_layers_are_named_by_their_place(name, layer):
    assert layer_of(name) == layer


def test_logs_the_weights_after_the_update_at_its_interval(problem):
    module = problem.fit(WeightNorm(every_n_steps=4))
    rows = [row for row in problem.log.rows if "weight_norm/norm" in row]
    assert [row["at"] for row in rows] == [1, 4, 8]
    for layer in (0, 3):
        expected = np.linalg.norm(module.model[layer].weight.detach().numpy())
        assert rows[-1][f"weight_norm/{layer}_norm"] == pytest.approx(expected, rel=1e-5)
