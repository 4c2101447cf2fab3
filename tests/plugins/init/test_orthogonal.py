import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting
from plugins.init.orthogonal import OrthogonalInit


def drawn(layer, gain=1.0, seed=0):
    plugin = OrthogonalInit(gain)
    plugin.prepare(Setting((1,), (), seed))
    return plugin.transform_model(layer)


def expect_orthogonal(matrix, gain):
    rows, columns = matrix.shape
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    torch.testing.assert_close(product, gain**2 * torch.eye(min(rows, columns)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gain", [1.0, 2**0.5])
def test_rows_or_columns_are_orthogonal(gain):
    expect_orthogonal(drawn(nn.Linear(9, 6), gain).weight, gain)
    expect_orthogonal(drawn(nn.Linear(6, 9), gain).weight, gain)
    expect_orthogonal(drawn(nn.Conv2d(3, 5, 3), gain).weight.flatten(1), gain)
    expect_orthogonal(drawn(nn.ConvTranspose2d(5, 3, 3), gain).weight.transpose(0, 1).flatten(1), gain)
    for group in drawn(nn.Conv1d(4, 6, 3, groups=2), gain).weight.chunk(2):
        expect_orthogonal(group.flatten(1), gain)
    for gate in drawn(nn.LSTM(5, 7), gain).weight_hh_l0.chunk(4):
        expect_orthogonal(gate, gain)


def test_no_direction_is_preferred():
    """Q alone would have the signs that the algorithm of QR gives."""
    signs = torch.stack([drawn(nn.Linear(2, 2), seed=seed).weight.detach().sign() for seed in range(200)])
    assert signs.mean(0).abs().max() < 0.3


def test_biases_are_zero_and_one_seed_is_one_result():
    first, again, other = (drawn(nn.Linear(5, 4), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight) and not first.bias.any()


def test_refuses():
    with pytest.raises(RecipeError, match="^gain must be a number > 0"):
        OrthogonalInit(0.0)
