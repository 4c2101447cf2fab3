import pytest
import torch
from torch import nn

from plugins.base import Setting
from plugins.init import lsuv
from plugins.init.lsuv import LSUVInit, spread
from plugins.normalization.weight_standardization import standardize
from plugins.preprocessing._layer import Affine


def net():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3), nn.Tanh(), nn.Flatten(),
        nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, 5),
    )  # fmt: skip


def drawn(model, x, seed=0, **further):
    plugin = LSUVInit()
    plugin.prepare(Setting(tuple(x.shape[1:]), (), seed, training_inputs=lambda: iter(x.split(30)), **further))
    return plugin.transform_model(model)


def returned(model, x):
    """The variance of what each linear and convolution layer returns."""
    found, handles = {}, []

    def note(name):
        def hook(layer, inputs, output):
            found.setdefault(name, output.var(correction=0).item())

        return hook

    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            handles.append(layer.register_forward_hook(note(name)))
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    return found


def test_each_layer_returns_unit_variance_and_is_orthogonal_but_for_a_factor():
    x = 3 + 7 * torch.randn(100, 2, 6, 6)
    model = net()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    found = returned(drawn(model, x).train(), x)
    assert list(found) == ["0", "4", "7", "9"] and list(found.values()) == pytest.approx([1] * 4, abs=2e-3)
    weight = model[4].weight.detach().flatten(1)
    product = weight @ weight.T
    torch.testing.assert_close(product, product[0, 0] * torch.eye(3), rtol=1e-4, atol=1e-5)
    assert not any(layer.bias.any() for layer in (model[0], model[4], model[7], model[9]))
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


def test_modes_stay_and_no_random_numbers_of_others_are_drawn():
    model, x = net(), torch.randn(20, 2, 6, 6)
    state = torch.get_rng_state()
    model[2].eval()
    drawn(model, x)
    assert torch.equal(torch.get_rng_state(), state) and model.training and not model[2].training


def test_it_sees_prepared_inputs_and_draws_the_same_whatever_stands_in_front():
    x = 100 + 50 * torch.randn(40, 2, 6, 6)
    plain, layer = net(), Affine(net(), torch.full((2, 1, 1), 100.0), torch.full((2, 1, 1), 0.02))
    drawn(plain, x)
    drawn(layer, x)
    assert list(returned(layer, x).values()) == pytest.approx([1] * 4, abs=2e-3)
    directions = [(model[0].weight / model[0].weight.norm()).detach() for model in (plain, layer.model)]
    torch.testing.assert_close(*directions)


@pytest.mark.parametrize("setting", [{"restored": True}, {"training_inputs": None}], ids=["goes on", "evaluated"])
def test_what_has_a_checkpoint_sees_no_samples(setting):
    model, plugin = net(), LSUVInit()

    def none():
        raise AssertionError("samples are read")

    plugin.prepare(Setting((2, 6, 6), (), **{"training_inputs": none, **setting}))
    plugin.transform_model(model)
    torch.testing.assert_close(model[9].weight @ model[9].weight.T, torch.eye(5))


def test_samples_are_spread_evenly_however_they_are_cut(monkeypatch):
    x = torch.arange(3000.0).view(-1, 1)
    chosen = spread(iter(x.split(1000)))
    assert torch.equal(chosen, spread(iter(x.split(70)))) and len(chosen) == lsuv.SAMPLES
    assert chosen.diff(dim=0).max() < 3 * 3000 / lsuv.SAMPLES and len(chosen.unique()) == lsuv.SAMPLES
    named = spread(iter([{"a": piece, "b": -piece} for piece in x.split(900)]))
    assert torch.equal(named["a"], chosen) and torch.equal(named["b"], -chosen)
    monkeypatch.setattr(lsuv, "LOOKED_AT", 200)
    assert spread(iter(x.split(100))).max() < 200


def test_what_takes_no_scale_is_left_and_a_shared_weight_is_scaled_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.second.weight = self.first.weight
            standardize(self.third)
            self.rest = nn.Linear(6, 2)

        def forward(self, x):
            return self.rest(self.third(self.second(self.first(input=x).relu()).relu()))

    x = 5 * torch.randn(50, 6)
    model = drawn(Twice(), x)
    found = returned(model, x)
    assert found["first"] == pytest.approx(1, abs=2e-3) and found["rest"] == pytest.approx(1, abs=2e-3)
    held = model.third.weight.detach()
    torch.testing.assert_close(held @ held.T, torch.eye(6), rtol=1e-4, atol=1e-5)  # as drawn
