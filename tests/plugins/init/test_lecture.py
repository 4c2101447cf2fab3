"""The tables of lecture A, "Parameter Initialization Strategies": the deviation of a signal behind each of 100 layers of 512 units."""

import pytest
import torch
from torch import nn

from plugins.base import Setting
from plugins.init.kaiming_normal import KaimingNormalInit
from plugins.init.kaiming_uniform import KaimingUniformInit
from plugins.init.normal import NormalInit
from plugins.init.uniform import UniformInit
from plugins.init.xavier_normal import XavierNormalInit
from plugins.init.xavier_uniform import XavierUniformInit


def identity(x):
    return x


@torch.no_grad()
def deviations(init, layers, activation=identity):
    """a ← activation(W a) as in the lecture, W drawn anew for each layer."""
    layer, found = nn.Linear(512, 512), []
    a = torch.randn(512, generator=torch.Generator().manual_seed(0))
    for number in range(layers):
        init.prepare(Setting((512,), (), number))
        a = activation(init.transform_model(layer)(a))
        found.append(a.std().item())
    return found


def test_of_a_normal_distribution_it_explodes():
    found = deviations(NormalInit(1.0), 40)
    assert found[1:4] == pytest.approx([513.349121, 11657.522461, 264361.500000], rel=0.25)
    assert found[-1] != found[-1]  # NaN


def test_a_hundredth_of_it_decreases_to_zero():
    found = deviations(NormalInit(0.01), 15)
    assert found[:4] == pytest.approx([0.226504, 0.051263, 0.011506, 0.002609], rel=0.25)
    assert found[-1] < 1e-8


def test_of_a_uniform_distribution_it_explodes():
    found = deviations(UniformInit(-1.0, 1.0), 5)
    assert found == pytest.approx([11.693220, 147.562729, 1966.933838, 25307.449219, 334509.031250], rel=0.3)


@pytest.mark.parametrize(("init", "layers"), [(XavierNormalInit(), 100), (XavierUniformInit(), 30)])
def test_xavier_keeps_it_near_one(init, layers):
    found = deviations(init, layers)
    assert min(found) > 0.4 and max(found) < 2.5 and found[:10] == pytest.approx([0.93] * 10, rel=0.3)


def test_xavier_decays_with_rectified_linear_units():
    found = deviations(XavierNormalInit(), 45, torch.relu)
    assert found[:6] == pytest.approx([0.603390, 0.445417, 0.297311, 0.204042, 0.149000, 0.099714], rel=0.25)
    assert found[-1] < 1e-6


@pytest.mark.parametrize(("init", "layers"), [(KaimingNormalInit(), 100), (KaimingUniformInit(), 30)])
def test_kaiming_holds_there(init, layers):
    found = deviations(init, layers, torch.relu)
    assert found[:8] == pytest.approx([0.82] * 8, rel=0.3) and min(found) > 0.25 and max(found) < 2.5
