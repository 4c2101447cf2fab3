"""Gradients by inputs with few channels: those of PyTorch, by a product."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from plugins.adversarial._crafting import crafting
from plugins.compiled import is_compiled
from plugins.input_gradients import PIECE, _Convolution, by_product, light_input_gradients

PLACES = [(1, 0, 1), (1, 1, 1), (2, 1, 1), (3, 2, 1), (1, 2, 2), ((2, 1), (0, 3), (1, 2))]  # stride, padding, dilation


def pairs(places):
    return [each if isinstance(each, tuple) else (each, each) for each in places]


def drawn(places, channels, bias=True, dtype=torch.float64):
    """Input, weight and bias of a convolution with random sizes."""
    kernel = torch.randint(1, 4, (2,)).tolist()
    x = torch.randn(2, channels, 8, 9, dtype=dtype, requires_grad=True)
    weight = torch.randn(4, channels, *kernel, dtype=dtype, requires_grad=True)
    return x, weight, torch.randn(4, dtype=dtype, requires_grad=True) if bias else None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("places", PLACES, ids=str)
def test_is_the_gradient_of_pytorch(places, channels, bias):
    places = pairs(places)
    given = drawn(places, channels, bias)
    asked = [each for each in given if each is not None]
    plain, light = nn.functional.conv2d(*given, *places), _Convolution.apply(*given, *places)
    assert torch.equal(plain, light)
    g = torch.randn_like(plain)
    for one, other in zip(torch.autograd.grad(plain, asked, g), torch.autograd.grad(light, asked, g), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("places", PLACES, ids=str)
def test_has_second_derivatives(places):
    def light(*given):
        return _Convolution.apply(*given, *pairs(places))

    assert torch.autograd.gradgradcheck(light, drawn(pairs(places), 1), fast_mode=True)


def test_many_samples_go_in_pieces():
    weight, g = torch.randn(16, 3, 3, 3), torch.randn(7, 16, 62, 62)
    assert 1 < PIECE // (27 * 62 * 62) < 14
    whole = by_product(g.repeat(3, 1, 1, 1), weight, (64, 64), (1, 1), (0, 0), (1, 1))
    torch.testing.assert_close(whole[7:14], torch.nn.grad.conv2d_input((7, 3, 64, 64), weight, g), atol=1e-4, rtol=1e-4)


class Standardized(nn.Conv2d):
    """Changes its weight where PyTorch says that a subclass may."""

    def _conv_forward(self, input, weight, bias):
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True)
        return super()._conv_forward(input, weight, bias)


def changed(layer, **values):
    """A layer that somebody has changed behind its making."""
    for name, value in values.items():
        setattr(layer, name, value)
    return layer


class Named(nn.Module):
    """Calls its layer by name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3)
        self.in_channels, self.weight = 1, self.layer.weight

    def forward(self, x):
        return self.layer(input=x)


LAYERS = {
    "standardized": lambda: Standardized(3, 4, 3),
    "replaced": lambda: changed(
        nn.Conv2d(3, 4, 3), _conv_forward=lambda x, weight, bias: nn.functional.conv2d(x, 2 * weight, bias)
    ),
    "numbers": lambda: changed(nn.Conv2d(3, 4, 3, padding=1, stride=2), stride=1, padding=0, dilation=2),
    "by name": Named,
    "few": lambda: nn.Conv2d(3, 4, 3),
    "padded": lambda: nn.Conv2d(2, 4, 3, padding=2, stride=2, bias=False),
    "same": lambda: nn.Conv2d(3, 4, 3, padding="same"),
    "circular": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    "groups": lambda: nn.Conv2d(3, 6, 3, groups=3),
    "many": lambda: nn.Conv2d(8, 4, 3),
    "double": lambda: nn.Conv2d(1, 4, 3).double(),
    "low precision": lambda: nn.Conv2d(1, 4, 3).bfloat16(),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("weights", [True, False])
def test_a_layer_computes_what_it_did_and_is_as_it_was(kind, weights):
    layer = LAYERS[kind]()
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3).to(layer.weight.dtype))
    x = torch.randn(5, layer.in_channels, 7, 8, dtype=layer.weight.dtype, requires_grad=True)
    found = []
    for context in (nullcontext(), light_input_gradients(model, weights)):
        with context:
            out = model(x)
        found.append((out, *torch.autograd.grad(out.square().sum(), [x, *model[3].parameters()])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2 if kind == "low precision" else 1e-4, atol=1e-5)
    assert "forward" not in vars(layer)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # as torch itself calls it
def test_forward_mode_and_maps_over_samples_lead_through_it():
    layer, x, moved = nn.Conv2d(2, 3, 3), torch.randn(4, 2, 6, 6, requires_grad=True), torch.randn(4, 2, 6, 6)

    def slopes():
        along = torch.func.jvp(layer, (x,), (moved,))
        each = torch.func.vmap(torch.func.grad(lambda x: layer(x.unsqueeze(0)).square().sum()))(x)
        return *along, each

    expected = slopes()
    with light_input_gradients(layer):
        found = slopes()
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_compiled_by_its_function_is_compiled(whole):
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3)

        def features(self, x):
            return self.layer(x)

        def forward(self, x):
            return self.features(x)

    model = Inside()
    assert not is_compiled(model)
    if whole:
        model.forward = torch.compile(model.forward, backend="eager")
    else:
        Inside.features = torch.compile(Inside.features, backend="eager")
        model = type("Later", (Inside,), {})()
    assert is_compiled(model)
    with light_input_gradients(model):
        assert "forward" not in vars(model.layer)


def test_it_is_left_when_a_pass_fails():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(9, 2))
    with pytest.raises(RuntimeError), light_input_gradients(model):
        model(torch.randn(2, 1, 8, 8, requires_grad=True))
    assert "forward" not in vars(model[0])


def test_weights_get_gradients_where_they_are_trained_only():
    layer, x = nn.Conv2d(1, 2, 3), torch.randn(2, 1, 8, 8, requires_grad=True)
    with light_input_gradients(layer):
        layer(x).sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((2,), 72.0))
    assert layer.weight.grad is not None
    with light_input_gradients(layer, weights=False):
        assert torch.autograd.grad(layer(x).sum(), layer.weight, allow_unused=True) == (None,)


def test_a_weight_that_is_drawn_is_drawn_once():
    class Drawn(nn.Module):
        calls = 0

        def forward(self, weight):
            Drawn.calls += 1
            return weight

    layer = nn.Conv2d(1, 2, 3)
    parametrize.register_parametrization(layer, "weight", Drawn())
    Drawn.calls = 0
    with light_input_gradients(layer):
        layer(torch.randn(2, 1, 8, 8, requires_grad=True))
    assert Drawn.calls == 1


def test_attacks_are_crafted_by_it():
    model, seen = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), []
    with crafting(model, True, torch.Generator()):
        seen.append(model(torch.randn(2, 1, 8, 8, requires_grad=True)).grad_fn.next_functions[0][0])
    assert "_Convolution" in type(seen[0]).__name__
