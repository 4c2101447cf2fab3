"""Over all optimizers: rates and weight decay by part of the model are those of an optimizer of that part alone."""

import copy

import pytest
import torch
from torch import nn

from recipes.config.catalogue import Catalogue
from recipes.engine.groups import GroupRules, make_with_groups, parameter_groups
from recipes.run.build import build_optimizer

OPTIONS = Catalogue().groups["optimizer"]
NEEDS = {"lion": "timm", "adan": "timm", "lamb": "timm", "lars": "timm", "timm": "timm", "soap": "pytorch_optimizer"}
DECAY = 0.1


def train(optimizer, parameters, steps=4):
    """Steps along gradients that are the same for parameters of one shape."""
    draw = torch.Generator().manual_seed(0)
    gradients = [[torch.randn(parameter.shape, generator=draw) for parameter in parameters] for _ in range(steps)]
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def copies(parameters):
    return [nn.Parameter(parameter.detach().clone()) for parameter in parameters]


@pytest.mark.parametrize("name", OPTIONS)
def test_rates_and_decay_by_part_are_those_of_an_optimizer_of_the_part(name):
    pytest.importorskip(NEEDS.get(name, name if name == "pytorch_optimizer" else "torch"))
    node = {**OPTIONS[name].node, "weight_decay": DECAY}
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    make, rules = build_optimizer({"optimizer": node | {"no_decay": ["bias"], "layer_decay": 0.5, "rates": {"head": 4.0}}})
    whole, options = copy.deepcopy(model), [made for made in [make.func] if hasattr(made, "group_parameters")]
    optimizer = make_with_groups(make, parameter_groups(whole, GroupRules(**rules), options))
    train(optimizer, list(whole.parameters()))
    base = make([nn.Parameter(torch.zeros(1, 1))]).param_groups[0]["lr"]
    matrices = {"0.weight", "2.weight"}  # of muon
    for part, (place, rate) in enumerate({"0": 0.25, "2": 0.5, "4": 4.0}.items()):
        for kind, decay in (("weight", DECAY), ("bias", 0.0)):
            index = 2 * part + (kind == "bias")
            alone = copies(model.parameters())
            algorithm = {"algorithm": "muon" if f"{place}.{kind}" in matrices else "adamw"} if name == "muon" else {}
            group = {"params": [alone[index]], "lr": base * rate, "weight_decay": decay, **algorithm}
            reference = make([group])
            train(reference, alone)
            found = dict(whole.named_parameters())[f"{place}.{kind}"]
            torch.testing.assert_close(found, alone[index], rtol=1e-5, atol=1e-7, msg=f"{place}.{kind}")
            assert not torch.equal(found, list(model.parameters())[index])
