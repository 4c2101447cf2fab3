"""What the tests of inits share that scale a layer's weights by its numbers of inputs and outputs."""

import pytest
import torch
from torch import nn

from plugins.base import Setting, derive_seed


class ScaledInit:
    """Tests of an init; a subclass says which one, what variance theory asks for, and how torch draws it."""

    plugin: type
    uniform: bool

    def variance(self, inputs, outputs):
        raise NotImplementedError

    def draw(self, weight, generator):
        raise NotImplementedError

    def drawn(self, model, seed=0):
        plugin = self.plugin()
        plugin.prepare(Setting((1,), (), seed))
        return plugin.transform_model(model)

    @pytest.mark.parametrize(
        ("layer", "inputs", "outputs"),
        [
            (nn.Linear(300, 200), 300, 200),
            (nn.Conv2d(40, 60, 3), 360, 540),
            (nn.Conv1d(60, 40, 5, groups=2), 150, 100),
            (nn.ConvTranspose2d(40, 60, 3), 360, 540),
        ],
    )
    def test_moments_are_those_of_theory(self, layer, inputs, outputs):
        weight = self.drawn(layer).weight.double().flatten()
        variance = self.variance(inputs, outputs)
        assert weight.var().item() == pytest.approx(variance, rel=0.08)
        assert abs(weight.mean().item()) < 6 * (variance / len(weight)) ** 0.5
        bound = (3 * variance) ** 0.5
        if self.uniform:
            assert 0.99 * bound < weight.abs().max() <= bound * (1 + 1e-6)
        else:
            assert (weight.abs() < variance**0.5).double().mean().item() == pytest.approx(0.6827, abs=0.02)
        assert not layer.bias.any()

    def test_draws_what_torch_draws(self):
        layer, expected = self.drawn(nn.Linear(30, 20), seed=5), torch.empty(20, 30)
        self.draw(expected, torch.Generator().manual_seed(derive_seed(5, "init", "")))
        assert torch.equal(layer.weight, expected)

    def test_every_gate_of_a_recurrent_layer_is_a_map_of_its_own(self):
        layer = self.drawn(nn.LSTM(100, 200))
        for gate in layer.weight_ih_l0.chunk(4):
            assert gate.double().var().item() == pytest.approx(self.variance(100, 200), rel=0.08)
        assert not layer.bias_hh_l0.any() and not layer.bias_ih_l0.any()

    def test_one_seed_one_result_bit_for_bit(self):
        models = (self.drawn(nn.Sequential(nn.Linear(9, 8), nn.Linear(8, 7)), seed) for seed in (1, 1, 2))
        for a, b, c in zip(*(model.parameters() for model in models), strict=True):
            assert torch.equal(a, b)
            assert a.ndim == 1 or not torch.equal(a, c)
