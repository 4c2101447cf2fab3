import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting
from plugins.inputs import Entry
from plugins.normalization._groups import fitting_groups
from plugins.normalization.group import GroupNormalization
from tests.plugins.normalization.placing import Tokens, convolutional, expect_reloads, hosts, normalized, norms, perceptron


def test_over_the_features_of_a_group_and_all_positions():
    model, x = convolutional(), 2 + torch.randn(4, 3, 6, 6)
    conv = model[0]
    normalized(GroupNormalization(2), model, (3, 6, 6))
    h = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    parts = h.view(4, 2, 4 * 36)
    parts = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(conv(x), parts.view_as(h), rtol=1e-4, atol=1e-5)
    assert [norm.num_groups for norm in norms(model).values()] == [2, 2, 2] and hosts(model) == ["0", "6"]


def test_where_nobody_says_it_groups_have_sixteen_numbers_or_more():
    assert [fitting_groups(*sizes) for sizes in ((64, (8, 8)), (128, ()), (6, (4, 4)), (12, ()), (7, ()), (50, (1, 1)))] == [
        32,
        8,
        6,
        1,
        1,
        2,
    ]
    model = normalized(GroupNormalization(), perceptron(), (5,))
    assert [norm.num_groups for norm in norms(model).values()] == [1, 1]


def test_where_a_group_would_be_one_number_there_is_none():
    model = normalized(
        GroupNormalization(6),
        nn.Sequential(*list(convolutional())[2:6], nn.Linear(96, 6), nn.ReLU(), nn.Linear(6, 2)),
        (8, 6, 6),
    )
    assert hosts(model) == [] and [norm.num_groups for norm in norms(model).values()] == [6]
    with pytest.raises(
        RecipeError, match="no place for such a norm layer in Sequential: .* single number .* normalization=layer"
    ):
        normalized(GroupNormalization(4), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (3,))


def test_checkpoints_reload():
    expect_reloads(GroupNormalization(), convolutional, (3, 6, 6), torch.randn(8, 3, 6, 6))
    expect_reloads(GroupNormalization(), Tokens, (4, 6), torch.randn(8, 4, 6))


def test_refuses():
    with pytest.raises(RecipeError, match="a layer of 6 features makes no 4 groups of equal size: type normalization.groups=3"):
        normalized(GroupNormalization(4), convolutional(), (3, 6, 6))
    plugin = GroupNormalization()
    plugin.prepare(Setting({"steps": Entry((4, 6), "float32"), "mask": Entry((4,), "bool")}, ()))

    class Masked(Tokens):
        def forward(self, inputs):
            return super().forward(inputs["steps"])

    with pytest.raises(RecipeError, match="normalization/group would take statistics over all places, .* mask leaves out"):
        plugin.transform_model(Masked())
    model, plugin = Masked(), GroupNormalization()
    model.mask = "valid"  # as a model tells that takes it by that name
    plugin.prepare(Setting({"steps": Entry((4, 6), "float32"), "valid": Entry((4,), "float32")}, ()))
    with pytest.raises(RecipeError, match="over all places, also those that the input valid leaves out"):
        plugin.transform_model(model)
