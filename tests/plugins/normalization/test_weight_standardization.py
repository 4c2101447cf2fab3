import copy
import pickle

import pytest
import torch
from torch import nn

from plugins.base import Setting
from plugins.init.normal import NormalInit
from plugins.normalization.weight_standardization import Standardized, WeightStandardization, standardize
from tests.plugins.normalization.placing import Tokens, convolutional, expect_reloads, hosts, normalized, norms, perceptron


def by_hand(weight):
    axes = tuple(range(1, weight.ndim))
    return (weight - weight.mean(axes, keepdim=True)) / (weight.var(axes, correction=0, keepdim=True) + 1e-6).sqrt()


def test_equals_timms_convolution():
    timm = pytest.importorskip("timm")
    theirs = timm.layers.StdConv2d(4, 6, 3, padding=1, bias=True)
    ours, x = nn.Conv2d(4, 6, 3, padding=1), torch.randn(2, 4, 5, 5)
    ours.load_state_dict(theirs.state_dict())
    standardize(ours)
    torch.testing.assert_close(ours(x), theirs(x))
    upstream = torch.randn(2, 6, 5, 5)
    ours(x).backward(upstream)
    theirs(x).backward(upstream)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_the_weights_of_an_output_along_the_first_dimension(groups):
    layer, x = nn.ConvTranspose2d(4, 6, 3, groups=groups), torch.randn(2, 4, 5, 5)
    weight = torch.cat([by_hand(part.transpose(0, 1)).transpose(0, 1) for part in layer.weight.detach().chunk(groups)])
    expected = nn.functional.conv_transpose2d(x, weight, layer.bias, groups=groups)
    standardize(layer)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_layers_that_a_norm_follows_and_none_else():
    model, x = convolutional(), torch.randn(4, 3, 6, 6)
    before = {name: value.clone() for name, value in model.named_parameters()}
    normalized(WeightStandardization(), model, (3, 6, 6))
    assert [isinstance(model[place], Standardized) for place in (0, 2, 6, 8)] == [True, True, True, False]
    assert hosts(model) == ["0", "6"] and all(type(norm) is nn.GroupNorm for norm in norms(model).values())
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items() if name in after)
    assert before.keys() - after.keys() == set() and isinstance(model[0], nn.Conv2d)
    h = nn.functional.conv2d(x, by_hand(before["0.weight"]), before["0.bias"], padding=1)
    torch.testing.assert_close(model[0](x), model[0].norm(h))


def test_a_weight_that_is_alone_stays():
    model = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    normalized(WeightStandardization(), model, (1,))
    assert [isinstance(model[place], Standardized) for place in (0, 2, 4)] == [False, True, False]


def test_put_in_twice_it_is_there_once():
    model, x = normalized(WeightStandardization(), perceptron(), (5,)), torch.randn(4, 5)
    before, names = model(x), [name for name, _ in model.named_modules()]
    normalized(WeightStandardization(), model, (5,))
    assert torch.equal(model(x), before) and [name for name, _ in model.named_modules()] == names


def test_initial_weights_are_drawn_of_what_is_trained():
    model, init = normalized(WeightStandardization(), perceptron(), (5,)), NormalInit(0.5)
    init.prepare(Setting((5,), ()))
    expected = nn.Linear(5, 24)
    init.transform_model(nn.ModuleDict({"0": expected}))
    assert torch.equal(init.transform_model(model)[0].weight, expected.weight)


def test_copies_and_files():
    model, x = normalized(WeightStandardization(), perceptron(), (5,)), torch.randn(4, 5)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x)) and other[0].weight is not model[0].weight
    expect_reloads(WeightStandardization(), convolutional, (3, 6, 6), torch.randn(8, 3, 6, 6))
    expect_reloads(WeightStandardization(), Tokens, (4, 6), torch.randn(8, 4, 6))
