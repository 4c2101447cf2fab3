"""What processes share: here without others, whose sums are those of equal processes."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from recipes.engine.sync import share_statistics

ROUNDED = 12582914.0  # three times this is no float of 32 bits


@pytest.fixture
def three(monkeypatch):
    """Three processes that hold the same numbers."""
    monkeypatch.setattr(dist, "all_reduce", lambda flat: flat.copy_((flat + flat) + flat))


@pytest.mark.parametrize("rests", [True, False])
def test_statistics_of_layers_that_rest_stay_bit_for_bit(three, rests):
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    model[0].train(not rests)
    model[0].running_mean.fill_(ROUNDED)
    share_statistics(model, 3)
    assert bool((model[0].running_mean == ROUNDED).all()) is rests  # else the rounding is there to be seen
    torch.testing.assert_close(model[0].running_mean, torch.full((2,), ROUNDED))
