"""One rule for what a weight is, held by everything that acts on weights: each once, whatever holds it."""

import copy
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import swin_t, vit_b_16

from plugins.base import Setting
from plugins.init.normal import NormalInit
from plugins.parameters import named_parameters, weights_of
from plugins.regularizer.l2 import L2Penalty
from plugins.regularizer.weight_noise import WeightNoise
from recipes.engine.groups import GroupRules, parameter_groups
from recipes.engine.module import RecipeModule


class Norm(nn.Module):
    """A norm layer of one's own."""

    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, width))

    def forward(self, x):
        return x * self.scale / x.square().mean(1, keepdim=True).sqrt()


class RootMeanSquareNorm(Norm):
    """Another name."""


class Mixed(nn.Module):
    """Parameters of all kinds, for samples of 6 numbers, as 6 tokens."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.pos_embedding = nn.Parameter(torch.randn(7, 8))
        self.position = nn.Embedding(7, 8)
        self.words = nn.Embedding(10, 8)
        self.own = nn.Parameter(torch.randn(8, 8))
        self.w = nn.Parameter(torch.randn(1, 8))
        self.layer_scale = nn.Parameter(torch.ones(8, 1, 1))
        self.slope = nn.PReLU()
        self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True)
        self.norm, self.own_norm = nn.LayerNorm(8), RootMeanSquareNorm(8)
        self.block = nn.Linear(8, 8)
        self.again = self.block
        self.tied = nn.Linear(8, 10, bias=False)
        self.tied.weight = self.words.weight
        self.spectral = parametrizations.spectral_norm(nn.Linear(8, 8))
        self.spectral_bias = nn.Linear(8, 8)
        nn.utils.parametrize.register_parametrization(self.spectral_bias, "bias", nn.Tanh())
        self.weight_normed = parametrizations.weight_norm(nn.Linear(8, 3))

    def forward(self, x):
        h = self.words(torch.zeros(len(x), 6, dtype=torch.long)) * x[:, :, None]
        h = torch.cat([self.cls_token.expand(len(x), -1, -1), h], 1) + self.pos_embedding + self.position(torch.arange(7))
        h = self.norm(self.attention(h, h, h)[0] + h).mean(1)
        h = self.slope(self.again(self.block(h @ self.own))) * self.w * self.layer_scale.flatten()
        h = self.own_norm(h) + self.tied(h).mean(1, keepdim=True)
        return self.weight_normed(self.spectral_bias(self.spectral(h)))


WEIGHTS = {
    "own", "w", "words.weight", "attention.in_proj_weight", "attention.out_proj.weight", "block.weight", "spectral_bias.weight",
    "spectral.parametrizations.weight.original",
    "weight_normed.parametrizations.weight.original0", "weight_normed.parametrizations.weight.original1",
}  # fmt: skip
NORMS = {"norm.weight", "norm.bias", "own_norm.scale"}


def names(model, kind):
    return {named.name for named in named_parameters(model) if named.kind == kind}


def test_the_rule():
    model = Mixed()
    every = {name for name, _ in model.named_parameters()}
    assert [named.name for named in named_parameters(model)] == [name for name, _ in model.named_parameters()]
    assert names(model, "weight") == WEIGHTS
    assert names(model, "norm") == NORMS
    assert names(model, "bias") == every - WEIGHTS - NORMS
    model.own.requires_grad_(False)
    assert {id(p) for p in weights_of(model)} == {id(model.get_parameter(name)) for name in WEIGHTS - {"own"}}


@pytest.mark.parametrize(
    "layer", [nn.GRU(3, 4), nn.LSTM(3, 4, proj_size=2), nn.LSTMCell(3, 4), nn.Bilinear(2, 3, 1), nn.Conv2d(1, 1, 1)]
)
def test_layers_of_torch_have_weights_and_biases(layer):
    for named in named_parameters(layer):
        assert named.kind == ("bias" if named.name.startswith("bias") else "weight")


@pytest.mark.parametrize("make", [vit_b_16, swin_t])
def test_transformers_of_torchvision(make):
    with torch.device("meta"):
        model = make()
    expected = {name for name, p in model.named_parameters() if p.ndim > 1 and name.endswith("weight")}
    assert names(model, "weight") == expected
    assert not {"class_token", "encoder.pos_embedding"} & names(model, "weight")


def test_a_weight_tied_to_a_position_is_a_weight_wherever_it_stands():
    for order in (0, 1):
        parameter = nn.Parameter(torch.ones(4, 4))
        modules = [nn.Embedding(4, 4), nn.Linear(4, 4, bias=False)]
        for module in modules:
            module.weight = parameter
        pairs = list(zip(["position", "head"], modules, strict=True))
        model = nn.ModuleDict(dict(pairs[::-1] if order else pairs))
        assert [named.kind for named in named_parameters(model)] == ["weight"]


@pytest.mark.parametrize("kinds", [["bias"], ["norm"], ["bias", "norm"]])
def test_weight_decay_follows_the_rule(kinds):
    model = Mixed()
    groups = parameter_groups(model, GroupRules(kinds))
    assert len([p for group in groups for p in group["params"]]) == len(list(model.parameters()))
    free = {id(p) for group in groups if group.get("weight_decay") == 0 for p in group["params"]}
    assert free == {id(named.parameter) for named in named_parameters(model) if named.kind in kinds}


def fit(model, *plugins, loss=None, **options):
    module = RecipeModule(
        model, loss or nn.functional.cross_entropy, partial(torch.optim.SGD, lr=options.pop("lr", 0.1)), **options
    )
    data = TensorDataset(torch.randn(8, 6), torch.arange(8) % 3)
    L.Trainer(
        max_steps=1, accelerator="cpu", callbacks=list(plugins), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, DataLoader(data, 8))  # fmt: skip
    return model


def test_l2_pulls_each_weight_once():
    model = Mixed()
    before = copy.deepcopy(model)
    fit(model, L2Penalty(0.5), loss=lambda output, target: 0 * output.mean())
    for name, parameter in model.named_parameters():
        expected = before.get_parameter(name) * (0.95 if name in WEIGHTS else 1)
        torch.testing.assert_close(parameter, expected, msg=name)


def test_weight_noise_falls_on_each_weight_once():
    model, seen = Mixed(), {}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.ones_like(parameter))
    model.register_forward_pre_hook(
        lambda model, _: seen.update({name: value.detach().clone() for name, value in model.named_parameters()})
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    fit(model, WeightNoise(0.1), lr=0.0)
    assert {name for name in before if not torch.equal(before[name], seen[name])} == WEIGHTS
    for name in ("words.weight", "block.weight", "attention.in_proj_weight"):
        assert (seen[name] - before[name]).std().item() == pytest.approx(0.1, rel=0.3)
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_init_draws_weights_and_clears_biases_each_once():
    def drawn(model):
        plugin = NormalInit(0.1)
        plugin.prepare(Setting((1,), (), 0))
        return plugin.transform_model(model)

    model = Mixed()
    model.weight_normed = nn.Linear(8, 3)  # what is computed from several tensors is refused
    drawn(model)
    for name in ("attention.in_proj_weight", "attention.out_proj.weight", "block.weight", "words.weight"):
        assert model.get_parameter(name).std().item() == pytest.approx(0.1, rel=0.35), name
    for name in ("attention.in_proj_bias", "attention.bias_k", "block.bias", "spectral_bias.parametrizations.bias.original"):
        assert not model.get_parameter(name).any(), name
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    alone = drawn(nn.Sequential(copy.deepcopy(first)))[0].weight
    second.weight = first.weight
    assert torch.equal(drawn(nn.Sequential(first, second))[1].weight, alone)
