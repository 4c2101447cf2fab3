import pytest
import torch
from torch import nn

from plugins.normalization.rms import FeatureMapRMSNorm, RMSNormalization
from tests.plugins.normalization.placing import Tokens, convolutional, expect_reloads, hosts, normalized, norms


@pytest.mark.parametrize("places", [(5,), (3, 4)])
def test_over_features_and_positions_of_each_sample(places):
    x, layer = 2 + torch.randn(4, 6, *places), FeatureMapRMSNorm(6)
    nn.init.normal_(layer.weight)
    rms = x.flatten(1).square().mean(1).sqrt()
    expected = x / rms.view(-1, 1, *(1 for _ in places)) * layer.weight.view(-1, *(1 for _ in places))
    torch.testing.assert_close(layer(x), expected)
    half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.03, atol=0.03)


def test_without_positions_and_behind_them_it_is_torchs():
    model, x = normalized(RMSNormalization(), convolutional(), (3, 6, 6)), torch.randn(4, 96)
    assert [type(norm) for norm in norms(model).values()] == [FeatureMapRMSNorm, FeatureMapRMSNorm, nn.RMSNorm]
    h = nn.functional.linear(x, model[6].weight, model[6].bias)
    torch.testing.assert_close(model[6](x), nn.functional.rms_norm(h, (12,), eps=1e-6))
    tokens, x = normalized(RMSNormalization(), Tokens(), (4, 6)), torch.randn(3, 4, 6)
    assert type(tokens.norm) is nn.RMSNorm and hosts(tokens) == ["first"]
    torch.testing.assert_close(tokens.norm(x), nn.functional.rms_norm(x, (6,), eps=1e-6))


def test_checkpoints_reload():
    expect_reloads(RMSNormalization(), convolutional, (3, 6, 6), torch.randn(8, 3, 6, 6))
    expect_reloads(RMSNormalization(), Tokens, (4, 6), torch.randn(8, 4, 6))
