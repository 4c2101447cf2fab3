import numpy as np
import pytest
import torch
from torch import nn

from plugins.clipping.norm import ClipNorm
from plugins.diagnostics.gradient_stats import GradientStats, layer_gradients


def test_gradients_of_a_layer_together():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2, bias=False), nn.LayerNorm(2)))
    model(torch.randn(5, 3)).square().sum().backward()
    model[2][1].weight.grad = None
    got = layer_gradients(model)
    assert list(got) == ["0", "2.0", "2.1"]
    expected = np.concatenate([model[0].weight.grad.numpy().ravel(), model[0].bias.grad.numpy()])
    np.testing.assert_array_equal(got["0"], expected)
    assert torch.equal(got["2.1"], model[2][1].bias.grad)
    kept = got["2.0"].clone()
    model[2][0].weight.grad.zero_()
    assert torch.equal(got["2.0"], kept)


def test_a_parameter_of_the_model_itself():
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    assert list(layer_gradients(model)) == ["model"]


def test_logs_norms_and_histograms_of_the_gradient_of_that_step(problem):
    problem.fit(GradientStats(every_n_steps=4))
    model = problem.copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for x, y in problem.batches[:4]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    rows = [row for row in problem.log.rows if "gradient_stats/norm" in row]
    assert [row["at"] for row in rows] == [1, 4, 8]
    whole = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    assert rows[1]["gradient_stats/norm"] == pytest.approx(np.linalg.norm(whole), rel=1e-4)
    for layer in ("0", "1", "3"):
        gradient = np.concatenate([p.grad.numpy().ravel() for p in model[int(layer)].parameters()])
        assert rows[1][f"gradient_stats/{layer}_norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
        histogram = next(h for h in problem.log.histograms if f"gradient_stats/{layer}" in h and h["at"] == 4)
        low, high, counts = histogram[f"gradient_stats/{layer}"].read()
        np.testing.assert_allclose([low, high], [gradient.min(), gradient.max()], rtol=1e-3, atol=1e-6)
        assert sum(counts) == gradient.size
        assert np.abs(np.histogram(gradient, 64)[0] - counts).sum() <= 2  # one value may have rounded into the next bin


def test_sees_the_clipped_gradient(problem):
    problem.fit(GradientStats(every_n_steps=1), ClipNorm(0.01))
    assert problem.log.series("gradient_stats/norm") == [pytest.approx(0.01, rel=1e-3)] * 8


def test_changes_no_bit_of_training(problem, weights, same):
    assert same(weights(problem.fit(GradientStats(every_n_steps=1))), weights(problem.fit()))
