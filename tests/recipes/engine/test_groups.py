"""Parameter groups: what rules and options say of each parameter, and steps that equal those of one optimizer a parameter."""

from __future__ import annotations

import re
from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import efficientnet_b0, googlenet, resnet18, vit_b_16

from plugins.base import Option, Plugin, RecipeError, Setting, Stage, Task
from plugins.depth import depths
from plugins.multitask._heads import split_head
from recipes.data.loaders import StepLoader
from recipes.engine.groups import GroupRules, make_with_groups, parameter_groups
from recipes.engine.module import RecipeModule
from recipes.models.dgcnn import DGCNN
from tests.recipes.engine.test_module import SGD, fit, samples


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x))


def factors(model, rules):
    """The factor on the rate of each parameter, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, rules)
    return {names[id(each)]: group.get("rate", 1.0) for group in groups for each in group["params"]}


def test_the_rate_falls_with_each_layer_away_from_the_head():
    found = factors(Net(), GroupRules(layer_decay=0.5))
    body = dict.fromkeys(["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"], 0.25)
    assert found == body | dict.fromkeys(["body.3.weight", "body.3.bias"], 0.5) | {"head.weight": 1.0, "head.bias": 1.0}


def test_heads_of_several_tasks_are_one_layer():
    tasks = tuple(Task(name, "classification", outputs) for name, outputs in (("a", 3), ("b", 2), ("c", 4)))
    for model, names in ((Net(), "body.0 body.1 body.3"), (nn.Linear(6, 3), "")):
        found = factors(split_head(model, Setting((6,), tasks)), GroupRules(layer_decay=0.5))
        assert {name.rpartition(".")[0] for name, rate in found.items() if rate < 1} == set(names.split())
        assert len([rate for rate in found.values() if rate == 1]) == 6


@pytest.mark.parametrize(("make", "layers"), [(resnet18, 10), (vit_b_16, 14)])
def test_blocks_of_known_models_are_layers(make, layers):
    model = make(weights=None)
    found = depths(model)
    assert set(found) == {name for name, _ in model.named_parameters()} and set(found.values()) == set(range(layers))
    head = {"resnet18": "fc", "vit_b_16": "heads"}[make.__name__]
    assert {name.partition(".")[0] for name, depth in found.items() if depth == 0} == {head}
    first = {name for name, depth in found.items() if depth == layers - 1}
    assert {"conv1.weight", "bn1.weight"} <= first if make is resnet18 else {"class_token", "conv_proj.weight"} <= first


def test_branches_beside_each_other_are_one_layer():
    with torch.device("meta"):
        found = depths(googlenet(num_classes=3, aux_logits=False, init_weights=False))
    assert max(found.values()) == 12  # three convolutions and nine inceptions before the head
    assert len({depth for name, depth in found.items() if name.startswith("inception3a")}) == 1


def test_a_block_that_is_alone_in_its_row_is_one_layer():
    with torch.device("meta"):
        found = depths(efficientnet_b0(num_classes=3))
    assert set(found.values()) == set(range(1 + 16 + 2))  # two of seven rows have one block


def test_blocks_that_a_stage_holds_by_name_are_layers():
    with torch.device("meta"):
        found = depths(timm.create_model("regnetx_002", num_classes=3))
    assert set(found.values()) == set(
        range(1 + 1 + 4 + 7 + 2)
    )  # the blocks of four stages, before them the stem, behind them the head


def test_what_holds_a_norm_alone_belongs_to_the_layer_before_it():
    found = depths(DGCNN((30, 3), 3, k=4))
    assert found["norm.norm.weight"] == found["linear.weight"] == 3  # the linear layers of the head behind it


@pytest.mark.parametrize(
    ("rates", "raised"),
    [
        ({"head": 10}, {"head.weight": 10, "head.bias": 10}),
        ({"body.*": 0.1}, {name: 0.1 for name, _ in Net().named_parameters() if name.startswith("body")}),
        ({"*.bias": 3}, {name: 3 for name, _ in Net().named_parameters() if name.endswith("bias")}),
        ({"body": 2, "body.3": 5}, {name: 5 if "3" in name else 2 for name, _ in Net().named_parameters() if "body" in name}),
    ],
)
def test_rates_by_name(rates, raised):
    found = factors(Net(), GroupRules(rates=rates))
    assert found == {name: raised.get(name, 1.0) for name, _ in Net().named_parameters()}


def test_the_head_is_the_last_layer_whatever_it_is_called():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    assert factors(model, GroupRules(rates={"head": 10, 0: 2})) == {"0.weight": 2, "0.bias": 2, "2.weight": 10, "2.bias": 10}


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"rates": 3}, "optimizer.rates must be factors by name, such as {head: 10}, got 3"),
        ({"rates": [1]}, "optimizer.rates must be factors by name, such as {head: 10}, got [1]"),
        (
            {"rates": {"neck": 2}},
            "optimizer.rates names neck, which no parameter of the model has; its parts are: body, head; head is the last",
        ),
        ({"rates": {"head": 0}}, "optimizer.rates.head must be a number > 0, got 0"),
        ({"rates": {"head": "fast"}}, "optimizer.rates.head must be a number > 0, got 'fast'"),
        ({"layer_decay": 0}, "optimizer.layer_decay must be a number > 0, got 0"),
        ({"layer_decay": 1.5}, "optimizer.layer_decay must be a number in (0, 1], got 1.5"),
        ({"no_decay": ["weight"]}, "optimizer.no_decay must name bias or norm, got weight"),
        ({"no_decay": [1, None, ["bias"]]}, "optimizer.no_decay must name bias or norm, got 1, null, [bias]"),
    ],
)
def test_what_cannot_be_meant_is_refused(rules, told):
    with pytest.raises(RecipeError, match=f"^{re.escape(told)}$"):
        parameter_groups(Net(), GroupRules(**rules))


@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.AdamW, lr=0.01), partial(torch.optim.RMSprop, lr=0.01)])
@pytest.mark.parametrize(
    "scheduler", [None, lambda optimizer, total: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total)]
)
def test_a_step_is_that_of_one_optimizer_for_each_parameter(optimizer, scheduler):
    rules = {"no_decay": ["bias"], "layer_decay": 0.7, "rates": {"body.3": 4.0}}
    torch.manual_seed(0)
    split, model = samples(24), Net()
    reference = Net()
    reference.load_state_dict(model.state_dict())
    make = partial(optimizer, weight_decay=0.1)
    module = RecipeModule(model, functional.cross_entropy, make, scheduler, **rules)
    fit(module, StepLoader(split, 8, 0), steps=6)
    trained = {name.removeprefix("model."): value for name, value in module.model.named_parameters()}
    found = factors(reference, GroupRules(layer_decay=0.7, rates={"body.3": 4.0}))
    ones = []
    for name, parameter in reference.named_parameters():
        one = make(
            [{"params": [parameter], **({"weight_decay": 0.0} if name.endswith("bias") and name != "body.1.bias" else {})}]
        )
        one.param_groups[0]["lr"] *= found[name]
        ones.append((one, scheduler and scheduler(one, 6)))
    loader = StepLoader(split, 8, 0)
    for index in [index for epoch in range(2) for index in loader.order(epoch)][:6]:
        reference.zero_grad()
        functional.cross_entropy(reference(split.x[index]), split.targets[""][index]).backward()
        for one, schedule in ones:
            one.step()
            if schedule:
                schedule.step()
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(parameter, trained[name], rtol=1e-4, atol=1e-5)


def test_the_rate_that_is_logged_is_that_of_the_head():
    groups = parameter_groups(Net(), GroupRules(layer_decay=0.5, no_decay=["bias"]))
    assert "rate" not in groups[0] and [group.get("rate", 1.0) for group in groups].count(1.0) == 2


class Slow(Plugin):
    stage, option, group = Stage.PENALTY, "slow", "own"

    @classmethod
    def group_parameters(cls, named):
        return [{"rate": 0.5, "momentum": 0.3} if each.kind == "bias" else {} for each in named]


class Contrary(Slow):
    option = "contrary"

    @classmethod
    def group_parameters(cls, named):
        return [{"momentum": 0.7} if each.kind == "bias" else {} for each in named]


class SpeakingSGD(Option, torch.optim.SGD):
    checked: tuple = ()

    @classmethod
    def group_parameters(cls, named):
        return [{"momentum": 0.9} if each.kind == "weight" else {} for each in named]

    def check(self, selection):
        self.checked = (*self.checked, selection)


def test_options_say_what_holds_for_which_parameter():
    module = RecipeModule(Net(), functional.cross_entropy, partial(SpeakingSGD, lr=1.0), layer_decay=0.5)
    fit(module, StepLoader(samples(16), 8, 0), Slow(), steps=3)
    optimizer = module.of_optimizer[0]
    names = {id(parameter): name for name, parameter in module.model.named_parameters()}
    found = {names[id(each)]: (group["lr"], group["momentum"]) for group in optimizer.param_groups for each in group["params"]}
    assert found["body.0.weight"] == (0.25, 0.9) and found["body.0.bias"] == (0.125, 0.3)
    assert found["head.weight"] == (1.0, 0.9) and found["body.1.weight"] == (0.25, 0.0)
    (selection,) = optimizer.checked
    assert selection.optimizer is optimizer and selection.total_steps == 3 and selection.optimizer_class is SpeakingSGD


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(RecipeError, match="own/contrary wants momentum=0.7 for body.0.bias, and own/slow momentum=0.3"):
        parameter_groups(Net(), GroupRules(), [Slow(), Contrary()])


def test_an_optimizer_with_groups_of_its_own():
    """As some factories make: they keep what they are given, in other groups."""

    def own(groups):
        parameters = [parameter for group in groups for parameter in group["params"]]
        return torch.optim.SGD([{"params": [parameter]} for parameter in parameters], lr=1.0)

    def together(groups):
        return torch.optim.SGD([parameter for group in groups for parameter in group["params"]], lr=1.0)

    model = Net()
    optimizer = make_with_groups(own, parameter_groups(model, GroupRules(rates={"head": 3})))
    found = {id(group["params"][0]): group["lr"] for group in optimizer.param_groups}
    assert {name: found[id(parameter)] for name, parameter in model.named_parameters()} == factors(
        model, GroupRules(rates={"head": 3})
    )
    assert make_with_groups(together, parameter_groups(model, GroupRules(no_decay=["bias"]))).param_groups[0]["lr"] == 1.0
    with pytest.raises(
        RecipeError, match="SGD is made with parameter groups of its own, in one of which learning rates would differ"
    ):
        make_with_groups(together, parameter_groups(model, GroupRules(layer_decay=0.5)))
