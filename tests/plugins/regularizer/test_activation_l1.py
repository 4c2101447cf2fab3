from functools import partial
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from plugins.adversarial.pgd import PGD
from plugins.base import Batch, Plugin, RecipeError, Setting, Stage, Task
from plugins.inputs import Entry
from plugins.recording import Recording
from plugins.regularizer.activation_l1 import ActivationL1, activation_l1_penalty
from plugins.regularizer.dropout import Dropout
from plugins.wrapper.sam import SAM
from recipes.engine.module import RecipeModule
from recipes.models.cnn import CNN
from recipes.models.transformer import TransformerModel
from tests.plugins.regularizer.compiling import compile_and_fit


def test_equals_the_equation():
    first, second = torch.randn(7, 5), torch.randn(7, 3, 2, 2)
    expected = sum(0.3 * (first[i].abs().sum() + second[i].abs().sum()) for i in range(7)) / 7
    torch.testing.assert_close(activation_l1_penalty([first, second], 0.3, 7), expected)


def test_refuses_a_negative_weight():
    with pytest.raises(RecipeError, match="weight must be a number ≥ 0"):
        ActivationL1(weight=-1)


class Net(nn.Module):
    """With one activation for two layers, a function that a module returns, and an activation of the output."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(6, 6) for _ in range(4))
        self.act, self.function, self.last = nn.Tanh(), Function(), nn.ELU()

    def hidden(self, x):
        """The hidden activations, in order."""
        first = self.act(self.a(x))
        second = self.act(self.b(first))
        return [first, second, torch.relu(self.c(second))]

    def forward(self, x):
        first = self.act(self.a(x))
        return self.last(self.d(self.function(self.c(self.act(self.b(first))))))


class Function(nn.Module):
    def forward(self, x):
        return nn.functional.relu(x)


LOADER = DataLoader(TensorDataset(torch.randn(32, 6), torch.randint(6, (32,))), batch_size=8)


def fit(model, *plugins, steps=1, **arguments):
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1), **arguments)
    quiet = {name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")}
    L.Trainer(max_steps=steps, accelerator="cpu", callbacks=[*plugins], **quiet).fit(module, LOADER)
    return module


def by_hand(model, weight, steps=1, hidden=Net.hidden):
    """Steps of gradient descent on the loss and the penalty, written out."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for (x, y), _ in zip(LOADER, range(steps), strict=False):
        penalty = sum(h.abs().sum() for h in hidden(model, x)) / len(x) if weight else 0
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(x), y) + weight * penalty).backward()
        optimizer.step()
    return dict(model.named_parameters())


def copies(make=Net, number=2):
    models = [make() for _ in range(number)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    return models


def assert_same(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(dict(found.model.named_parameters())[name], value)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_trains_on_the_penalty_of_all_hidden_activations(parts):
    first, second = copies()
    found = fit(first, ActivationL1(weight=0.05), steps=3, parts=parts)
    assert_same(found, by_hand(second, 0.05, 3))


def test_sites_narrow_by_name():
    first, second = copies()
    found = fit(first, ActivationL1(weight=0.05, sites=["function"]))
    assert_same(found, by_hand(second, 0.05, hidden=lambda model, x: model.hidden(x)[2:]))
    first, second = copies()
    found = fit(first, ActivationL1(weight=0.05, sites=["b"]))  # any module by its whole name
    assert_same(found, by_hand(second, 0.05, hidden=lambda model, x: [model.b(model.hidden(x)[0])]))


def test_what_is_recorded_is_not_dropped_yet():
    first, second = copies()
    plugin = ActivationL1(weight=0.1)
    module = RecipeModule(first, nn.functional.cross_entropy, torch.optim.SGD)
    module.build([Dropout(p=0.5), plugin], Setting((6,), (Task("", "classification", 6),)), devices=1)
    x = torch.randn(4, 6)
    with module.recorded.opened():
        module.model(x)
    torch.testing.assert_close(module.recorded[first.act][0], second.hidden(x)[0])


class Counting(nn.ReLU):
    calls = 0

    def forward(self, x):
        Counting.calls += 1
        return super().forward(x)


class Watching(ActivationL1):
    """Tells how many activations were recorded in each pass."""

    seen: list[int]

    def penalty(self, module, batch, outputs):
        self.seen.append(sum(len(module.recorded[part]) for part in self.recorded))
        return super().penalty(module, batch, outputs)


def test_passes_that_craft_an_attack_are_not_recorded():
    model = nn.Sequential(nn.Linear(6, 6), Counting(), nn.Linear(6, 6))
    plugin = Watching(weight=0.1)
    plugin.seen, Counting.calls = [], 0
    fit(model, plugin, PGD(eps=0.1, steps=3, range=[-9, 9]), steps=2)
    assert plugin.seen == [1, 1] and Counting.calls > 2 * 4


def test_steps_in_which_it_does_not_act_are_not_recorded():
    class Noting(Plugin):
        option, stage, seen = "noting", Stage.DIAGNOSTICS, []

        def penalty(self, module, batch, outputs):
            self.seen.append(sum(map(len, module.recorded.values())))

    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    fit(model, ActivationL1(weight=0.1, when=[0.5, 1.0]), Noting(), steps=4)
    assert Noting.seen == [0, 0, 1, 1]


def test_both_passes_of_sam_count():
    first, second = copies()
    plugin = Watching(weight=0.05)
    plugin.seen = []
    found = fit(first, plugin, SAM(rho=0.3))
    assert plugin.seen == [3, 3]
    x, y = next(iter(LOADER))

    def loss():
        return nn.functional.cross_entropy(second(x), y) + 0.05 * sum(h.abs().sum() for h in second.hidden(x)) / len(x)

    weights = list(second.parameters())
    gradients = torch.autograd.grad(loss(), weights)
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight += 0.3 * gradient / norm
    worst = torch.autograd.grad(loss(), weights)
    with torch.no_grad():
        for weight, at_first, at_worst in zip(weights, gradients, worst, strict=True):
            weight -= 0.3 * at_first / norm + 0.1 * at_worst
    assert_same(found, dict(second.named_parameters()))


def test_nothing_is_kept_between_steps():
    plugin = ActivationL1(weight=0.1)
    module = fit(Net(), plugin)
    assert plugin.recorded and all(module.recorded[part] == [] for part in plugin.recorded)


def test_trains_compiled_and_compiles_once():
    def make():
        return CNN((1, 8, 8), 3, (4,), 8)

    torch.manual_seed(5)
    first, second = copies(make)
    torch.manual_seed(7)
    compiled, graphs = compile_and_fit(first, ActivationL1(weight=0.01))
    assert graphs[0] >= 1 and graphs[-1] == graphs[0]
    torch.manual_seed(7)
    plain, graphs = compile_and_fit(second, ActivationL1(weight=0.01), backend=None)
    for (name, value), other in zip(compiled.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(value, other, msg=name)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.Linear(6, 3), nn.Sigmoid()),
            "no hidden activation in Sequential on which regularizer/activation_l1 could act",
        ),
        (nn.Linear(6, 3), "no activation in Linear"),
    ],
)
def test_what_it_cannot_look_at_is_refused(model, message):
    plugin = ActivationL1()
    plugin.prepare(Setting((6,), (Task("", "classification", 3),)))
    with pytest.raises(RecipeError, match=message):
        plugin.transform_model(model)


def test_places_that_a_mask_leaves_out_count_as_0():
    """However many of them follow a sequence."""
    shape = {"steps": Entry((9, 3), "float32"), "mask": Entry((9,), "bool")}
    plugin, model = ActivationL1(0.5), TransformerModel(shape, 3, width=8, heads=2, hidden=12, layers=2)
    plugin.prepare(Setting(shape, (Task("", "classification", 3),)))
    plugin.transform_model(model)
    steps, mask, penalties = torch.randn(4, 5, 3), torch.arange(5) < torch.tensor([[5], [2], [4], [0]]), []
    for further in (0, 4):
        x = {"steps": functional.pad(steps, (0, 0, 0, further)), "mask": functional.pad(mask, (0, further))}
        recorded = Recording(plugin.recorded)
        with recorded.opened():
            model(x)
        module = SimpleNamespace(recorded=recorded, record=lambda *_: None)
        penalties.append(plugin.penalty(module, Batch(x, {}, {}), {}))
        expected = sum(h[x["mask"]].abs().sum() for part in plugin.recorded for h in recorded[part])
        torch.testing.assert_close(penalties[-1], 0.5 * expected / 4)
    torch.testing.assert_close(*penalties)


def test_it_makes_up_for_how_often_a_sample_is_drawn():
    plugin, layer, correction = ActivationL1(0.5), nn.Linear(1, 1), torch.tensor([0.0, 2.0, 0.5])
    plugin.prepare(Setting((1,), ()))
    plugin.recorded, plugin._masks, maps, units = [layer], [], torch.randn(3, 4, 2), torch.randn(3, 5)
    module = SimpleNamespace(recorded={layer: [maps, units]}, record=lambda *_: None)
    batch = Batch(torch.zeros(3, 1), {}, {}, correction=correction)
    each = maps.abs().sum((1, 2)) + units.abs().sum(1)
    torch.testing.assert_close(plugin.penalty(module, batch, {}), 0.5 * (correction * each).mean())
    module.recorded[layer].append(torch.randn(12, 2))  # the steps of all samples, one behind the other
    with pytest.raises(
        RecipeError, match=r"shape \(12, 2\) have no row for each of 3 samples: .*activation_l1.sites, or leave [^\n]*out$"
    ):
        plugin.penalty(module, batch, {})
