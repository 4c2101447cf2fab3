import math
from types import SimpleNamespace

import pytest
from torch import nn

from plugins.base import RecipeError
from plugins.finetuning.linear_probe import LinearProbe

BODY = ("0", "1", "3", "4")


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 4), (0.6, 3), (2.0, 8)])
def test_equals_a_loop_in_which_the_head_is_alone_at_first(net, train, by_hand, same, epochs, steps):
    expected = by_hand(net, [BODY] * steps + [()] * (9 - steps))
    same(train(net, LinearProbe(epochs), steps=9), expected)


def test_a_norm_without_parameters_at_the_input_rests_with_the_layer_behind_it(train):
    model = nn.Sequential(nn.BatchNorm1d(6, affine=False), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    steps = train(model, LinearProbe(1.0), steps=5)
    assert [bool(step[0].running_mean.any()) for step in steps] == [False] * 4 + [True]


def test_no_epochs_are_no_technique():
    assert LinearProbe(0.0).is_off and not LinearProbe().is_off


def test_tells_when_all_are_trained(net):
    plugin = LinearProbe(0.5)
    plugin.transform_model(net)
    assert plugin.remarks == ["trains 6 (27 of 187 parameters), from epoch 0.5 on all"]


def test_refuses_what_cannot_be(net):
    with pytest.raises(RecipeError, match="^epochs must be a number ≥ 0"):
        LinearProbe(-1.0)
    with pytest.raises(RecipeError, match="needs layers before the head"):
        LinearProbe().transform_model(nn.Linear(3, 2))


def test_refuses_data_without_an_end(net):
    plugin = LinearProbe()
    plugin.transform_model(net)
    with pytest.raises(RecipeError, match="counts epochs, and the training data has no end"):
        plugin.on_train_start(SimpleNamespace(num_training_batches=math.inf), None)
