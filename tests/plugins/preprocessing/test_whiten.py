import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from plugins.base import RecipeError, Refusal, Selection, Setting
from plugins.preprocessing.whiten import WhitenInputs
from tests.plugins.preprocessing.fitting import fitted


def correlated(samples, *shape):
    size = int(np.prod(shape))
    return (5 + torch.randn(samples, size) @ torch.randn(size, size)).view(samples, *shape)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
@pytest.mark.parametrize("shape", [(6,), (2, 3, 2)])
def test_equals_the_inverse_root_of_the_covariance(eps, shape):
    x, other = correlated(60, *shape), torch.randn(4, *shape)
    flat = x.flatten(1).double().numpy()
    covariance = np.cov(flat, rowvar=False, bias=True) + eps * np.eye(flat.shape[1])
    matrix = np.linalg.inv(scipy.linalg.sqrtm(covariance))
    expected = (other.flatten(1).double().numpy() - flat.mean(0)) @ matrix
    found = fitted(WhitenInputs(eps), x)(other)
    assert found.shape == other.shape
    np.testing.assert_allclose(found.flatten(1), expected, rtol=1e-3, atol=1e-3)


def test_features_have_unit_variance_and_no_correlation():
    x = correlated(200, 5)
    out = fitted(WhitenInputs(0.0), x)(x).double()
    torch.testing.assert_close(out.T @ out / len(x), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-4)


def test_what_does_not_vary_in_training_becomes_zero():
    x = torch.cat([torch.randn(50, 2), torch.full((50, 1), 0.1)], 1)
    x = torch.cat([x, x[:, :1]], 1)  # and two features that are one
    for eps in (0.0, 1e-5):
        layer = fitted(WhitenInputs(eps), x)
        out = layer(torch.tensor([[0.0, 0.0, 7.0, 0.0], [0.0, 0.0, -3.0, 0.0]]))
        assert out.isfinite().all()
        torch.testing.assert_close(out[0], out[1])
        apart = layer(torch.tensor([[1.0, 0.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]]))
        torch.testing.assert_close(apart[0], apart[1], rtol=1e-4, atol=1e-4)


def test_a_mean_far_away_and_pieces_of_any_size():
    x = 1e3 + correlated(40, 4) * 0.1
    one, other = fitted(WhitenInputs(0.0), x, (1, 1, 1)), fitted(WhitenInputs(0.0), x, (37, 1, 1))
    torch.testing.assert_close(one.matrix, other.matrix, rtol=1e-4, atol=1e-6)


def test_mixed_precision_leaves_it_precise():
    x = correlated(60, 6)
    layer = fitted(WhitenInputs(), x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.float32 and torch.equal(found, layer(x))


def test_gradients_reach_the_raw_inputs():
    x = correlated(60, 6)
    layer, raw, weight = fitted(WhitenInputs(0.1), x), torch.randn(2, 6, requires_grad=True), torch.randn(2, 6)
    (gradient,) = torch.autograd.grad((layer(raw) * weight).sum(), raw)
    torch.testing.assert_close(gradient, weight @ layer.matrix.T)


def test_buffers_of_a_loaded_run_come_from_its_checkpoint():
    x, plugin = torch.rand(20, 2, 3, 3), WhitenInputs()
    trained = fitted(WhitenInputs(), x)
    plugin.prepare(Setting((2, 3, 3), ()))
    loaded = plugin.transform_model(nn.Identity())
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(x), trained(x)) and not torch.equal(loaded(x), x)


def test_refuses():
    with pytest.raises(RecipeError, match="finite"):
        fitted(WhitenInputs(), torch.full((20, 2), torch.nan))
    plugin = WhitenInputs()
    with pytest.raises(
        Refusal, match=r"150,528 are too many for their covariance \(at most 8,192\): type preprocessing=standard"
    ):
        plugin.check(Selection([plugin], Setting((3, 224, 224), ())))
