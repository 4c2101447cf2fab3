import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting
from plugins.init.dirac import DiracInit


def drawn(model):
    plugin = DiracInit()
    plugin.prepare(Setting((1,), ()))
    plugin.transform_model(model)
    return plugin


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv1d(4, 4, 3, padding=1), (7,)),
        (nn.Conv2d(4, 4, 5, padding=2), (6, 7)),
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), (6, 7)),
        (nn.ConvTranspose2d(4, 4, 3, padding=1), (6, 7)),
    ],
    ids=["1d", "2d", "groups", "transposed"],
)
def test_a_convolution_returns_what_it_gets(layer, size):
    assert not drawn(layer).remarks
    x = torch.randn(3, 4, *size)
    torch.testing.assert_close(layer(x), x, rtol=0, atol=0)


def test_it_is_torchs_and_further_outputs_are_zero_and_told():
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    head = model[4].weight.clone()
    plugin = drawn(model)
    for layer in (model[0], model[2]):
        assert torch.equal(layer.weight, nn.init.dirac_(torch.empty_like(layer.weight))) and not layer.bias.any()
    assert torch.equal(model[4].weight, head) and not model[4].bias.any()
    assert plugin.remarks == [
        "3 of 8 outputs of convolutions are 0 at the start, as there are more than inputs: behind a rectified linear unit they stay 0"
    ]


def test_refuses_a_model_without_convolutions():
    with pytest.raises(
        RecipeError, match="init/dirac makes identities of convolutions, and Linear has none: .* init=orthogonal"
    ):
        drawn(nn.Linear(3, 2))
