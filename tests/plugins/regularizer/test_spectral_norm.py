import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from plugins.base import RecipeError, Setting, Task
from plugins.parameters import weights_of
from plugins.regularizer.spectral_norm import Normalized, SpectralNorm, iterate
from recipes.engine.module import RecipeModule
from recipes.engine.timing import open_gates


def placed(model, shape=(6,)):
    plugin = SpectralNorm()
    plugin.prepare(Setting(shape, (Task("", "classification", 3),)))
    return plugin.transform_model(model), plugin


def settled(plugin):
    """The vectors as they are after many steps: how near those of the first lie depends on what was drawn."""
    for _ in range(200):
        plugin.after_step(None, None)


def largest(weight, transposed=False):
    return torch.linalg.matrix_norm((weight.transpose(0, 1) if transposed else weight).flatten(1), 2).item()


def test_the_iteration_finds_the_largest_singular_value():
    w = torch.randn(7, 5)
    u, v = iterate(w, torch.randn(7), torch.randn(5), 300)
    assert (u @ w @ v).item() == pytest.approx(largest(w), rel=1e-5)


@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 5), nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 3)], ids=lambda layer: type(layer).__name__
)
def test_trains_as_torchs_parametrization(layer):
    ours, theirs = copy.deepcopy(layer), parametrizations.spectral_norm(copy.deepcopy(layer))
    ours, plugin = placed(nn.Sequential(ours))
    [(weight, mine)], reference = plugin.layers, theirs.parametrizations.weight[0]
    for kept, value in zip((mine.u, mine.v), (reference._u, reference._v), strict=True):
        kept.copy_(value)
    mine.improve(weight)  # torch does so in the forward pass
    x = torch.randn(4, *((6,) if isinstance(layer, nn.Linear) else (3, 8, 8)))
    for _ in range(4):
        for model in (ours, theirs.train()):
            loss = model(x).tanh().square().mean()
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.5 * parameter.grad
        plugin.after_step(None, None)
    torch.testing.assert_close(weight, theirs.parametrizations.weight.original)
    torch.testing.assert_close(ours[0].weight, theirs.weight)  # torch takes one more step when it is asked


def test_all_weights_have_1_as_largest_singular_value(problem):
    with torch.no_grad():
        problem.model[0].weight *= 5
    model = problem.fit(SpectralNorm(), steps=8).model
    assert largest(model[0].parametrizations.weight.original) > 1.5
    for layer in (model[0], model[3]):
        assert largest(layer.weight) == pytest.approx(1, abs=0.05)
    assert [name for name, _ in model.named_parameters() if "parametrizations" in name] == [
        "0.parametrizations.weight.original", "3.parametrizations.weight.original",
    ]  # fmt: skip
    assert len([*weights_of(model)]) == 2


def test_a_pass_leaves_the_vectors_alone_so_parts_of_a_step_see_the_same_weight():
    model, _ = placed(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    before = copy.deepcopy(model.state_dict())
    model.train()(torch.randn(4, 6)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(self.table(x).mean(1))


def test_a_weight_that_layers_share_stays_one():
    model, plugin = placed(Tied())
    assert len(plugin.layers) == 1 and len([*model.parameters()]) == 1
    assert torch.equal(model.table.weight, model.head.weight)
    settled(plugin)
    assert largest(model.head.weight) == pytest.approx(1, abs=0.02)
    attention, plugin = placed(nn.MultiheadAttention(4, 2, batch_first=True))
    settled(plugin)
    assert len(plugin.layers) == 2 and largest(attention.in_proj_weight) == pytest.approx(1, abs=0.1)
    x = torch.randn(2, 3, 4)
    assert functional.mse_loss(attention(x, x, x)[0], torch.zeros(2, 3, 4)).isfinite()


def test_mixed_precision_rounds_no_singular_value():
    weight = torch.randn(40, 30)
    layer = Normalized(weight, False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(weight), layer(weight).float()) and layer(weight).dtype == torch.float32
    assert torch.equal(Normalized(torch.zeros(3, 2), False)(torch.zeros(3, 2)), torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.LSTM(3, 4), "cannot normalize .*weight_ih_l0, a weight of a recurrent layer"),
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 3))), "which is parametrized already"),
    ],
)
def test_what_it_cannot_normalize_is_refused(model, message):
    with pytest.raises(RecipeError, match=message):
        placed(model)


def test_weights_are_as_they_are_outside_of_its_time():
    module = RecipeModule(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), functional.cross_entropy, torch.optim.SGD)
    before = module.model[0].weight.detach().mul_(5).clone()  # far from 1
    module.build([plugin := SpectralNorm(when=(0.5, 1))], Setting((6,), (Task("", "classification", 3),)), devices=1)
    open_gates(module, (0, 10))
    assert torch.equal(module.model[0].weight, before)
    open_gates(module, (5, 10))
    settled(plugin)
    assert largest(module.model[0].weight) == pytest.approx(1, abs=0.05) != largest(before)
