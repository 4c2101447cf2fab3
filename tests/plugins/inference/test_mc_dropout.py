import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn

from plugins.base import Batch, RecipeError, Setting, Task
from plugins.inference.mc_dropout import MCDropout, block_size
from plugins.regularizer.dropout import Dropout
from plugins.sites import DROPOUTS
from recipes.engine.module import RecipeModule


def net():
    """Running statistics far from those of a batch: whether batch norm is in evaluation mode is plain to see."""
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 5))
    with torch.no_grad():
        model(5 * torch.randn(32, 6) + 3)
    return model


def build(model, *plugins, kind="classification"):
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.build(plugins, Setting((6,), (Task("", kind, 5),)), devices=1)
    return module


def passes(model, x, samples):
    """Outputs with dropout drawn, and all else in evaluation mode, written out."""
    linear, norm, _, dropout, last = model
    for _ in range(samples):
        h = nn.functional.relu(norm.eval()(linear(x)))
        keep = torch.empty_like(h).bernoulli_(1 - dropout.p)
        yield last(h * keep / (1 - dropout.p))


def test_mean_of_the_probabilities_of_stochastic_passes():
    model, x, plugin = net(), torch.randn(30, 6), MCDropout(samples=200)
    module = build(model, plugin)
    model.eval()
    predicted = plugin.predict(module, x)[""]
    torch.testing.assert_close(predicted.sum(1), torch.ones(30))
    written = torch.stack([out.softmax(1) for out in passes(copy.deepcopy(model), x, 5000)])
    error = written.std(0) * (1 / 200 + 1 / 5000) ** 0.5
    assert ((predicted - written.mean(0)).abs() < 7 * error + 1e-4).all()
    one = MCDropout(samples=1).predict(module, x)[""]
    assert not torch.equal(one, model(x).softmax(1))  # dropout is on,
    assert not any(part.training for part in model.modules())  # and off again
    model[3].p = 0.0
    torch.testing.assert_close(plugin.predict(module, x)[""], model(x).softmax(1))


def test_a_regression_gets_the_mean_of_outputs():
    model, x, plugin = net(), torch.randn(30, 6), MCDropout(samples=300)
    module = build(model, plugin, kind="regression")
    model.eval()
    written = torch.stack(list(passes(copy.deepcopy(model), x, 5000)))
    error = written.std(0) * (1 / 300 + 1 / 5000) ** 0.5
    predicted = plugin.predict(module, x)[""]
    assert ((predicted - written.mean(0)).abs() < 7 * error + 1e-4).all()
    y = torch.randn(30, 5)
    assert plugin.measure(module, Batch(x, {"": y}, {"": y}), {"": predicted}, "test") == {}


def test_entropy_equals_scipy():
    plugin, p = MCDropout(), torch.rand(20, 5).softmax(1)
    p[0] = torch.tensor([1.0, 0, 0, 0, 0])
    module = build(net(), plugin)
    y = torch.randint(5, (20,))
    logs = {"": p.clamp_min(torch.finfo(p.dtype).tiny).log()}  # what the engine makes of predictions
    entropies, counts = plugin.measure(module, Batch(torch.randn(20, 6), {"": y}, {"": y}), logs, "val")["entropy"]
    torch.testing.assert_close(entropies, torch.tensor(stats.entropy(p.numpy(), axis=1)), atol=1e-5, rtol=0)
    assert counts.all()


def test_entropy_of_class_maps_is_that_of_known_places():
    module = SimpleNamespace(setting=Setting((2, 4, 4), (Task("", "classification", 5, shape=(4, 4)),)))
    x, model, y = torch.randn(3, 2, 4, 4), nn.Conv2d(2, 5, 1), torch.randint(5, (3, 4, 4))
    y[:, :2] = y[2] = 255

    def measured(x):
        return MCDropout().measure(module, Batch(x, {"": y}, {"": y}), {"": model(x).detach()}, "test")["entropy"]

    values, counts = measured(x)
    assert counts.tolist() == [True, True, False]
    of_places = stats.entropy(model(x).detach().softmax(1).numpy(), axis=1)
    torch.testing.assert_close(values[:2], torch.tensor(of_places[:2, 2:].mean((1, 2))))
    others = torch.randn_like(x).where((y == 255).unsqueeze(1), x)
    assert torch.equal(measured(others)[0][:2], values[:2])


def test_validation_uses_the_mean_and_training_stays_as_it_is(problem, weights, same):
    plain = problem.fit(Dropout(p=0.5))
    module = problem.fit(Dropout(p=0.5), MCDropout(samples=7))
    assert same(weights(plain), weights(module))
    assert 0 < module.metrics["val/entropy"] <= torch.log(torch.tensor(3.0))
    assert module.metrics["val/loss"] != plain.metrics["val/loss"]
    assert problem.fit(Dropout(p=0.5), MCDropout(samples=7)).metrics["val/loss"] == module.metrics["val/loss"]


def test_refuses_a_model_without_dropout_and_names_the_fix():
    with pytest.raises(RecipeError, match=r"Linear has none: train with \+regularizer=dropout"):
        build(nn.Linear(6, 5), MCDropout())


# Passes that would all be equal are refused


class Functions(nn.Module):
    """Which drops by a function."""

    def __init__(self, module=False):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 5)
        self.drop = nn.Dropout(0.3) if module else nn.Identity()

    def forward(self, x):
        return self.last(nn.functional.dropout(self.drop(torch.relu(self.first(x))), 0.3, self.training))


class Unused(nn.Module):
    """With dropout that its forward never calls."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(6, 5), nn.Dropout(0.3)

    def forward(self, x):
        return self.layer(x)


class Encoder(nn.Module):
    """A transformer, which has a fast way past its dropout in evaluation mode."""

    def __init__(self, dropout=0.2, attention=None):
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 12, dropout, batch_first=True)
        if attention is not None:
            layer.self_attn.dropout = attention
            for name in ("dropout", "dropout1", "dropout2"):
                getattr(layer, name).p = 0.0
        self.encoder, self.last = layer, nn.Linear(6, 5)

    def forward(self, x):
        return self.last(self.encoder(torch.stack([x, 2 * x, x.flip(1)], 1)).mean(1))


class Recurrent(nn.Module):
    def __init__(self, dropout=0.3):
        super().__init__()
        self.cells, self.last = nn.GRU(2, 8, 2, batch_first=True, dropout=dropout), nn.Linear(8, 5)

    def forward(self, x):
        return self.last(self.cells(x.view(-1, 3, 2))[0][:, -1])


def with_dropout(*layers):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), *layers, nn.Linear(8, 5))


def in_evaluation_mode():
    model = with_dropout(nn.Dropout(0.5))
    model[2].eval()
    return model


@pytest.mark.parametrize(
    ("make", "plugins", "message"),
    [
        (lambda: with_dropout(nn.Dropout(0.0)), [], "all dropout layers of Sequential have p=0, so that all passes are equal"),
        (lambda: with_dropout(nn.Dropout(1.0)), [], "have p=1, so that all passes are equal: set regularizer.dropout.p"),
        (with_dropout, [Dropout(p=0.0)], "has none: train with .*, and regularizer.dropout.p above 0"),
        (lambda: with_dropout(nn.AlphaDropout(0.0), nn.Dropout1d(0.0)), [], "have p=0"),
        (lambda: Encoder(0.0), [], "have p=0"),
        (lambda: Recurrent(0.0), [], "Recurrent has none: train with"),
        (
            Functions,
            [],
            r"cannot switch on the dropout that Functions calls by functions \(dropout in Functions\): write it as",
        ),
        (lambda: Functions(module=True), [], "calls by functions"),
        (Unused, [], "passes through Unused with dropout on are all equal"),
        (in_evaluation_mode, [], "are in evaluation mode, so that it is trained without"),
    ],
)
def test_passes_that_would_all_be_equal_are_refused(make, plugins, message):
    with pytest.raises(RecipeError, match=message) as refused:
        build(make(), *plugins, MCDropout())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "plugins"),
    [
        (with_dropout, [Dropout(p=0.02)]),
        (with_dropout, [Dropout(p=0.5, mode="vanilla")]),
        (lambda: with_dropout(nn.Dropout(0.0), nn.Dropout(0.5)), []),
        (lambda: with_dropout(nn.AlphaDropout(0.3)), []),
        (lambda: with_dropout(nn.Unflatten(1, (8, 1)), nn.Dropout1d(0.3), nn.Flatten()), []),
        (Encoder, []),
        (lambda: Encoder(0.0, attention=0.5), []),
        (Recurrent, []),
    ],
)
def test_dropout_of_all_kinds_is_on_and_off_again(make, plugins):
    plugin, x = MCDropout(samples=1), torch.randn(400, 6)
    module = build(make(), *plugins, plugin)
    module.model.eval()
    with torch.no_grad():  # where a transformer takes its fast way
        assert not torch.allclose(plugin.predict(module, x)[""], module.outputs(x)[""].softmax(1), atol=1e-6)
        assert torch.equal(module.outputs(x)[""], module.outputs(x)[""])
    assert not any(part.training for part in module.model.modules()) and torch.backends.mha.get_fastpath_enabled()
    assert all(layer.p in (0.02, 0.5, 0.0, 0.3, 0.2) for layer in module.model.modules() if isinstance(layer, DROPOUTS))


def test_dropout_that_is_off_in_training_stays_off():
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.Dropout(0.25), nn.Linear(8, 5))
    model[1].eval()
    plugin = MCDropout()
    module, seen = build(model, plugin), []
    for part in (model[1], model[3]):
        part.register_forward_hook(lambda part, *_: seen.append((part.p, part.training)))
    plugin.predict(module, torch.randn(4, 6))
    assert set(seen) == {(0.5, False), (0.25, True)}


@pytest.mark.parametrize("split", [lambda n: [range(n)], lambda n: [range(0, 130), range(130, 131), range(131, n), range(0)],
                                   lambda n: [range(rank, n, 3) for rank in range(3)]])  # fmt: skip
def test_a_prediction_depends_on_the_place_of_a_sample_alone(split):
    """On whichever device, and beside whom, it is evaluated: and no two samples have one mask."""
    plugin, x = MCDropout(samples=3), torch.randn(1, 6).expand(300, 6)
    module = build(nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Dropout(0.5), nn.Linear(64, 5)), plugin)
    state = torch.get_rng_state()
    expected = plugin.predict(module, x)[""]
    assert len(expected.unique(dim=0)) == 300
    for positions in split(300):
        module.positions = positions
        assert torch.equal(plugin.predict(module, x[list(positions)])[""], expected[list(positions)])
    assert torch.equal(torch.get_rng_state(), state)


def test_large_inputs_pass_few_at_a_time():
    """Whose masks are drawn together is the same in batches of all sizes, and is no reason to fill a memory."""
    assert [block_size(shape) for shape in ((1, 8, 8), (3, 224, 224), (3, 4000, 4000))] == [128, 27, 1]
    model, plugin = nn.Sequential(nn.MaxPool2d(64), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 5)), MCDropout(samples=2)
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.build([plugin], Setting((1, 512, 512), (Task("", "classification", 5),)), devices=1)
    model.eval()
    x, seen = torch.rand(1, 1, 512, 512).expand(20, -1, -1, -1), []
    model[0].register_forward_hook(lambda part, inputs, _: seen.append(len(inputs[0])))
    whole = plugin.predict(module, x)[""]
    assert {*seen} == {16} and len(whole.unique(dim=0)) == 20
    for positions in (range(5), range(5, 20)):
        module.positions = positions
        torch.testing.assert_close(plugin.predict(module, x[list(positions)])[""], whole[list(positions)])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_many_passes_are_added_up_in_32_bits_at_least(kind):
    """A sum in 16 bits stays where it is once a further prediction is less than half a step of its numbers."""
    plugin = MCDropout(samples=1000)
    module = build(nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5)), plugin, kind="regression")
    module.outputs = lambda x: {"": torch.full((2, 5), 90.0, dtype=kind)}
    found = plugin._mean(module, torch.zeros(2, 6))[""]
    torch.testing.assert_close(found, torch.full((2, 5), 90.0, dtype=torch.promote_types(kind, torch.float32)))
