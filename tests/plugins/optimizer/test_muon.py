import copy

import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Refusal, Setting, Task
from plugins.multitask._heads import split_head
from plugins.optimizer.muon import Muon, orthogonalize
from plugins.parameters import named_parameters
from tests.harness import build, config_of


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7), (3, 2, 3, 3)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_is_torchs_on_matrices(shape, nesterov):
    ours = nn.Parameter(torch.randn(shape))
    theirs = nn.Parameter(ours.detach().flatten(1).clone())
    settings = {"lr": 0.03, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    mine = Muon([ours], **settings)
    reference = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **settings)
    for _ in range(10):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.flatten(1).clone()
        mine.step()
        reference.step()
        torch.testing.assert_close(ours.detach().flatten(1), theirs.detach(), rtol=1e-5, atol=1e-6)


def test_is_adamw_on_the_rest():
    ours = [nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(3, 5))]
    theirs = copy.deepcopy(ours)
    mine = Muon([{"params": ours, "algorithm": "adamw"}], lr=0.1, weight_decay=0.2, betas=[0.8, 0.9])
    reference = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.2, betas=(0.8, 0.9))
    for _ in range(10):
        for own, other in zip(ours, theirs, strict=True):
            own.grad = torch.randn_like(own)
            other.grad = own.grad.clone()
        mine.step()
        reference.step()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-7)


def test_all_singular_values_end_near_one():
    matrix = torch.randn(30, 12) @ torch.diag(torch.linspace(0.05, 5, 12))
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert values.min() > 0.5 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(orthogonalize(matrix).flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_matrices_are_weights_of_all_layers_but_tables_and_the_last():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 3))
    named = named_parameters(model)
    said = {each.name: told["algorithm"] for each, told in zip(named, Muon.group_parameters(named), strict=True)}
    assert [name for name, told in said.items() if told == "muon"] == ["1.weight", "3.weight"]


def test_heads_of_all_tasks_are_the_last_layer():
    tasks = (Task("a", "classification", 3), Task("b", "classification", 4), Task("c", "regression", 2))
    model = split_head(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)), Setting((4,), tasks))
    named = named_parameters(model)
    said = {each.name: told["algorithm"] for each, told in zip(named, Muon.group_parameters(named), strict=True)}
    assert [name for name, told in said.items() if told == "muon"] == ["0.weight", "1.weight"] and len(said) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1},
        {"momentum": 1.5},
        {"betas": [0.9]},
        {"betas": [0.9, 2]},
        {"betas": [1.0, 0.9]},
        {"momentum": 1},
        {"steps": 0},
        {"eps": -1},
        {"weight_decay": -1},
    ],
)
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Muon([nn.Parameter(torch.zeros(2, 2))], **wrong)


def test_shards_are_refused():
    with pytest.raises(Refusal, match="optimizer/muon needs whole weights or gradients"):
        build(config_of(["optimizer/muon"], "trainer=fsdp"))
