import copy

import pytest
import torch
from torch import nn

from plugins.averaging.swa import SWA
from plugins.base import RecipeError
from plugins.finetuning.freeze import Freeze
from plugins.regularizer.l1 import L1Penalty as L1
from plugins.regularizer.l2 import L2Penalty as L2
from plugins.regularizer.weight_noise import WeightNoise
from plugins.wrapper.sam import SAM

BODY = ("0", "1", "3", "4")


def changed(before, after):
    """The tensors that differ."""
    return {name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])}


def test_equals_a_loop_in_which_the_head_alone_is_trained(net, train, by_hand, same):
    expected = by_hand(net, [BODY] * 6)
    same(train(net, Freeze(), steps=6), expected)


def test_layers_by_name_and_wildcards(net, train, by_hand, same):
    expected = by_hand(net, [("0", "1", "6")] * 3)
    same(train(net, Freeze(["[01]", "head"]), steps=3), expected)


def test_norm_layers_learn_on_where_they_are_asked_to(net, train):
    before = copy.deepcopy(net)
    *_, after = train(net, Freeze(train_norm=True))
    norms = {f"{layer}.{name}" for layer in "14" for name in before[1].state_dict()}
    assert changed(before, after) == norms | {"6.weight", "6.bias"}


def test_norm_layers_without_parameters_rest_with_the_layer_before(train):
    model = nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False)),
        nn.Linear(8, 3),
    )
    before = copy.deepcopy(model)
    *_, after = train(model, Freeze(["0"]))
    assert {name.partition(".")[0] for name in changed(before, after)} == {"3", "4", "5"}


@pytest.mark.parametrize(
    "other",
    [SAM, lambda: SWA(0.25), lambda: L1(0.1), lambda: L2(0.1), lambda: WeightNoise(0.1)],
    ids=["sam", "swa", "l1", "l2", "weight_noise"],
)
def test_nothing_else_moves_what_is_frozen(net, train, other):
    before = copy.deepcopy(net)
    *_, after = train(net, Freeze(), other())
    assert changed(before, after) == {"6.weight", "6.bias"}
    assert changed(before, net) == {"6.weight", "6.bias"}  # what is left at the end


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.LBFGS])
def test_no_optimizer_moves_it(net, train, kind):
    before = copy.deepcopy(net)
    *_, after = train(net, Freeze(), make=lambda groups: kind(groups, 0.01), steps=2)
    assert changed(before, after) == {"6.weight", "6.bias"}


def test_what_was_frozen_before_stays_so(net, train):
    net[6].bias.requires_grad_(False)
    net[4].eval()
    before = copy.deepcopy(net)
    *_, after = train(net, Freeze(["0", "1"]))
    assert changed(before, after) == {"3.weight", "3.bias", "4.weight", "4.bias", "6.weight"}


def test_tells_what_is_trained(net):
    plugin = Freeze()
    plugin.transform_model(net)
    assert plugin.remarks == ["trains 27 of 187 parameters: 6"]


@pytest.mark.parametrize("arguments", [{"modules": []}, {"modules": "0"}, {"modules": [1]}, {"train_norm": 1}])
def test_refuses_other_values(arguments):
    with pytest.raises(RecipeError, match=f"^{next(iter(arguments))} must be"):
        Freeze(**arguments)


def test_refuses_what_cannot_be(net):
    with pytest.raises(
        RecipeError, match="finetuning.modules names layer9, which no parameter .* its parts are: 0, 1, 3, 4, 6;"
    ):
        Freeze(["layer9"]).transform_model(net)
    with pytest.raises(RecipeError, match="names all that is trained: leave a layer out"):
        Freeze(["*"]).transform_model(net)
    with pytest.raises(RecipeError, match="needs layers before the head, and Linear is its head alone"):
        Freeze().transform_model(nn.Linear(3, 2))
