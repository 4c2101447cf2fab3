import copy

import pytest
import torch
from torch import nn

from plugins.activations import FUNCTIONS, passage
from plugins.base import Plugin, RecipeError, Setting, Stage, Task
from plugins.regularizer.dropout import Dropout, DropoutLayer, dropout
from plugins.sites import ACTIVATIONS, attach, find_sites, trace
from recipes.engine.module import RecipeModule


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_equals_torch(p):
    x = torch.randn(64, 100)
    torch.manual_seed(3)
    expected = nn.functional.dropout(x, p)
    torch.manual_seed(3)
    torch.testing.assert_close(dropout(x, p), expected)


def test_zero_is_the_same_tensor():
    x = torch.randn(4, 5)
    assert dropout(x, 0.0) is x


def test_vanilla_scales_at_test_only():
    layer, x = DropoutLayer(0.3, "vanilla"), torch.rand(1000, 50) + 1
    out = layer(x)
    assert torch.equal(out[out != 0], x[out != 0])
    torch.testing.assert_close(layer.eval()(x), 0.7 * x)


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
def test_the_output_at_test_is_what_is_expected_in_training(mode):
    """Lectures A and B: units kept with 1 − p give the output of the test in expectation, in either mode; the weight behind sees the same."""
    p, x, weight = 0.3, torch.rand(20) + 1, torch.randn(20)
    layer = DropoutLayer(p, mode)
    seen = layer(x.expand(20_000, 20))
    expected = layer.eval()(x)
    torch.testing.assert_close(seen.mean(0), expected, rtol=0.03, atol=0)
    torch.testing.assert_close(expected, x if mode == "inverted" else (1 - p) * x)
    deviation = (seen @ weight).std().item() / 20_000**0.5
    assert (seen @ weight).mean().item() == pytest.approx((expected @ weight).item(), abs=5 * deviation)


def test_no_place_is_an_error_that_says_what_was_looked_for():
    with pytest.raises(RecipeError, match="no activation in Linear.*ReLU"):
        Dropout().transform_model(nn.Linear(3, 2))


def test_sites_narrow_by_name():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    Dropout(sites=["3"]).transform_model(model)
    assert not hasattr(model[1], "dropout") and isinstance(model[3].dropout, DropoutLayer)
    with pytest.raises(RecipeError, match="the model has: 1, 3"):
        Dropout(sites=["9"]).transform_model(model)


def test_a_row_of_modules_as_a_site_drops_once():
    inner = nn.Sequential(nn.Linear(6, 500), nn.Identity())
    _, found, _ = dropped(nn.Sequential(inner, nn.ReLU(), nn.Linear(500, 3)), p=0.5, sites=["0"])
    assert found == ["0.1"]
    assert (inner(torch.randn(40, 6)) == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


# Where it acts, in models of all kinds


class Functional(nn.Module):
    """With an activation that no module returns."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.act = nn.Linear(6, 16), nn.Linear(16, 3), nn.Tanh()

    def forward(self, x):
        return self.last(nn.functional.relu(self.act(self.first(x))))


class Block(nn.Module):
    """Whose output is that of a function."""

    def __init__(self, inplace=False):
        super().__init__()
        self.layer, self.inplace = nn.Linear(16, 16), inplace

    def forward(self, x):
        return nn.functional.gelu(self.layer(x)) if not self.inplace else torch.relu_(self.layer(x))


class Swish(nn.Module):
    """An activation of one's own."""

    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.ones(16))

    def forward(self, x):
        return x * torch.sigmoid(self.beta * x)


class Distances(nn.Module):
    """A layer without a product."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(3, 16))

    def forward(self, x):
        return -(x[:, None] - self.centres).abs().sum(2)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 16)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(96, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x):
        return self.body(self.table(x))


class Branches(nn.Module):
    """Whose output is a mapping, one of them through an activation."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.one, self.other = nn.Linear(16, 3), nn.Sequential(nn.Linear(16, 3), nn.Sigmoid())

    def forward(self, x):
        hidden = self.trunk(x)
        return {"one": self.one(hidden), "other": self.other(hidden)}


def between(*layers):
    return nn.Sequential(nn.Linear(6, 16), *layers, nn.Linear(16, 3))


def twice(layer):
    return between(layer, nn.Linear(16, 16), layer)


def frozen(model):
    return model.requires_grad_(False)


def partly_frozen():
    model = between(nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    model[1].eval()
    return model


def transformer(**arguments):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **arguments)
    return nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Linear(6, 16), layer, nn.Flatten(), nn.Linear(16, 3))


PLACES = {
    "not on the output": (lambda: nn.Sequential(between(nn.ReLU()), nn.Softplus()), ["0.1"]),
    "nor behind a reshape of it": (lambda: nn.Sequential(between(nn.ReLU()), nn.Tanh(), nn.Unflatten(1, (3, 1)), nn.Flatten()), ["0.1"]),
    "nor on one of several outputs": (Branches, ["trunk.1"]),
    "one module in several places": (lambda: twice(nn.ReLU()), ["1", "3"]),
    "in place": (lambda: between(nn.ReLU(inplace=True)), ["1"]),
    "a function that a module returns": (lambda: between(Block()), ["1"]),
    "in place, that a module returns": (lambda: between(Block(inplace=True)), ["1"]),
    "an activation of one's own": (lambda: between(Swish()), ["1"]),
    "tokens": (Tokens, ["body.2"]),
    "frozen weights": (lambda: frozen(between(nn.ReLU())), ["1"]),
    "compiled": (lambda: torch.compile(between(nn.ReLU()), backend="eager"), ["_orig_mod.1"]),
    "dropout of its own": (lambda: between(nn.ReLU(), nn.Dropout(0.1)), ["2"]),
    "shared dropout of its own": (lambda: between(nn.ReLU(), (own := nn.Dropout(0.1)), nn.Linear(16, 16), nn.ReLU(), own), ["2", "5"]),
    "spatial dropout of its own": (lambda: between(nn.ReLU(), nn.AlphaDropout(0.1)), ["1"]),
    "transformer": (transformer, ["2.dropout"]),
    "transformer without dropout": (lambda: transformer(dropout=0.0, activation="gelu"), ["2.dropout"]),
    "behind it a layer of one's own": (lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), Distances()), ["1"]),
    "recurrent": (lambda: nn.Sequential(Recurrent(), nn.ReLU(), nn.Linear(16, 3)), ["1"]),
}  # fmt: skip


class Recurrent(nn.Module):
    """Whose gates are no activations."""

    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(2, 16, batch_first=True)

    def forward(self, x):
        return self.cells(x.view(-1, 3, 2))[0][:, -1]


def dropped(model, shape=(6,), **arguments):
    """A model with dropout, and the names of the modules behind which it is."""
    plugin = Dropout(**arguments)
    plugin.prepare(Setting(shape, (Task("", "classification", 3),)))
    model = plugin.transform_model(model)
    layers = [name for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, DropoutLayer)]
    attached = {
        f"{name}.dropout".lstrip("."): name
        for name, module in model.named_modules(remove_duplicate=False)
        if hasattr(module, "attached")
    }
    return model, [attached.get(name, name) for name in layers], plugin


@pytest.mark.parametrize(("make", "places"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
def test_acts_on_hidden_activations(make, places, mode):
    model, found, _ = dropped(make(), p=0.75, mode=mode)
    assert found == places
    assert all(module.p == 0.75 and module.mode == mode for module in model.modules() if isinstance(module, DropoutLayer))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_knows_every_activation_of_torch(activation):
    arguments = {nn.Threshold: (0.0, 0.0)}.get(activation, ())
    width = 8 if activation is nn.GLU else 16
    model = nn.Sequential(nn.Linear(6, 16), activation(*arguments), nn.Linear(width, 4), activation(*arguments))
    assert dropped(model)[1] == ["1"]


def test_no_activation_of_torch_is_forgotten():
    others = {nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax}  # of which none acts unit by unit
    there = {getattr(nn.modules.activation, name) for name in nn.modules.activation.__all__}
    assert there - others == set(ACTIVATIONS)
    assert {kind.__name__.lower() for kind in ACTIVATIONS} <= {name.replace("_", "") for name in FUNCTIONS}


REFUSED = {
    "a function that no module returns": (Functional, {}, r"calls activations by functions.*\(relu in Functional\).*sites=\[NAME\]"),
    "only the output": (lambda: nn.Sequential(nn.Linear(6, 3), nn.Sigmoid()), {}, "no hidden activation in Sequential"),
    "none": (lambda: nn.Linear(6, 3), {}, "no activation in Linear: looked for modules of type ReLU"),
    "one module for hidden and output": (lambda: nn.Sequential(twice(act := nn.ReLU()), act), {}, "0.1 makes the model's output too"),
    "in evaluation mode": (lambda: between(nn.ReLU()).eval(), {}, "are in evaluation mode, in which nothing is dropped"),
    "own dropout that is elsewhere too": (
        lambda: nn.Sequential((own := nn.Dropout(0.1)), nn.Linear(6, 16), nn.ReLU(), own, nn.Linear(16, 3)), {}, "0 stands behind an activation and elsewhere too",
    ),
    "no such name": (Functional, {"sites": ["act2"]}, r"no activation matches sites=\['act2'\]; the model has: act"),
    "a name of the output": (lambda: nn.Sequential(between(nn.ReLU()), nn.Tanh()), {"sites": ["*.9", "2"]}, "the model has: 0.1"),
    "other samples": (lambda: nn.Sequential(nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 3)), {}, r"blank samples of shape \(6,\), .* do not pass"),
    "an attribute of that name": (lambda: between(Attached()), {}, "has an attribute `attached` of its own"),
}  # fmt: skip


class Attached(nn.ReLU):
    attached = True


@pytest.mark.parametrize(("make", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_act_on_is_refused(make, arguments, message):
    with pytest.raises(RecipeError, match=message) as refused:
        dropped(make(), **arguments)
    assert "\n" not in str(refused.value)


def test_sites_may_be_any_module_by_its_whole_name():
    assert dropped(Functional(), sites=["act"])[1] == ["act"]
    assert dropped(Functional(), sites=["first"])[1] == ["first"]
    assert dropped(between(nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 16), nn.ReLU()), sites=["1"])[1] == ["2"]
    assert dropped(between(Block(), nn.Linear(16, 16), nn.ReLU()), sites=["*1"])[1] == ["1"]


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
def test_torchs_transformer_calls_it_in_evaluations_too(mode):
    """Torch computes the whole layer in one operation there, where nobody asks for a gradient."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Linear(6, 16), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(16, 3)
    )
    x, plain = torch.randn(9, 6), copy.deepcopy(model).eval()
    for part in plain[2].layers:  # h (1 - p) before a linear layer is its weight times that
        part.linear2.weight.data *= 0.75 if mode == "vanilla" else 1.0
    model = dropped(model, p=0.25, mode=mode)[0].eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))
    torch.testing.assert_close(model(x), plain(x))


def test_frozen_parts_drop_nothing():
    model, found, _ = dropped(partly_frozen())
    assert found == ["1", "3"] and not model[1].dropout.training and model[3].dropout.training


def test_what_becomes_of_dropout_that_is_there_is_told():
    _, _, plugin = dropped(transformer(), p=0.3)
    changed, kept = plugin.remarks
    assert changed == "p=0.3 for the model's own dropout 2.dropout"
    assert "2.dropout1 (p=0.1), 2.dropout2 (p=0.1) stays as it is" in kept
    assert dropped(between(nn.ReLU()))[2].remarks == []


def test_looking_leaves_no_trace():
    model = frozen(between(nn.ReLU(), nn.BatchNorm1d(16)))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    dropped(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and model.training and model[1].dropout.training
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())
    assert [len(module._forward_hooks) for module in model] == [0, 1, 0, 0] and not any(m._forward_pre_hooks for m in model)


def test_a_model_that_was_compiled_and_run_drops_too(problem):
    compiled = torch.compile(between(nn.ReLU()), backend="eager")
    compiled(torch.zeros(2, 6))
    module = RecipeModule(compiled, nn.functional.cross_entropy, torch.optim.SGD)
    module.build([Dropout(p=0.5)], Setting((6,), (Task("", "classification", 3),)), devices=1)
    x = torch.randn(50, 6)
    assert not torch.equal(module.model(x), module.model(x))


class Mine(Plugin):
    """A technique of one's own, which looks for activations and attaches to them, or only looks."""

    stage = Stage.LAYERS

    def __init__(self, option, layer=None):
        self.name, self.layer = option, layer

    @property
    def option(self):
        return self.name

    def transform_model(self, model):
        self.calls = [call.name for call in trace(model, (6,))[0] if isinstance(call.module, ACTIVATIONS)]
        self.nodes = [
            type(call.node).__name__ for call in trace(model, (6,), graph=True)[0] if isinstance(call.module, ACTIVATIONS)
        ]
        self.sites = [name for name, _ in find_sites(model, ACTIVATIONS, "activation")]
        self.hidden = [place.name for place in passage(model, (6,)).hidden()]
        for _, host in find_sites(model, ACTIVATIONS, "activation") if self.layer else ():
            attach(host, self.name, self.layer())
        return model


@pytest.mark.parametrize("layer", [None, nn.PReLU, nn.Dropout, lambda: nn.Linear(16, 16), nn.Identity])
@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
def test_techniques_find_the_same_places_in_any_order(layer, mode):
    def places(*names):
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Sigmoid())
        plugins = [Mine(name, layer) for name in names] + [Dropout(mode=mode)]  # sorted by name: one before dropout, one after
        module = RecipeModule(model, nn.functional.cross_entropy, torch.optim.SGD)
        module.build(plugins, Setting((6,), (Task("", "classification", 16),)), devices=1)
        found = [name for name, part in model.named_modules() if isinstance(part, DropoutLayer)]
        assert module.plugins == sorted(plugins, key=lambda plugin: plugin.option)
        return [(one.calls, one.nodes, one.sites, one.hidden) for one in plugins[:-1]], found

    first, drops = places("a", "z")
    assert drops == ["1.dropout", "3.dropout"]
    assert first[0] == first[1] == (
        ["1", "3", "5"], ["ReluBackward0", "TanhBackward0", "SigmoidBackward0"], ["1", "3", "5"], ["1", "3"],
    )  # fmt: skip
