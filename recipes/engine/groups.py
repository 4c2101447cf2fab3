"""Parameter groups of an optimizer: what rules and techniques say of each parameter, and the parameters of which they say the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from plugins.base import Named, Option, RecipeError, called, expect, expect_positive, implementers
from plugins.depth import depths, meant_by
from plugins.parameters import named_parameters
from recipes.config.quoting import show

SPARED = ("bias", "norm")


@dataclass(frozen=True)
class GroupRules:
    """What any optimizer can be told of parameters.

    Args:
        no_decay: which of "bias" and "norm" get no weight decay.
        layer_decay: factor by which the learning rate falls with each layer away from the head, in (0, 1]; see `depths`.
        rates: factors on the learning rate, > 0, by name of a module or parameter, with wildcards; of several that fit the last holds. "head"
            is the last layer, whatever its name.

    Raises:
        RecipeError: another word, a factor out of range.
    """

    no_decay: Sequence[str] = ()
    layer_decay: float = 1.0
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := [word for word in self.no_decay if word not in SPARED]:
            raise RecipeError(f"optimizer.no_decay must name bias or norm, got {', '.join(map(show, unknown))}")
        expect_positive("optimizer.layer_decay", self.layer_decay)
        expect(self.layer_decay <= 1, "optimizer.layer_decay", "a number in (0, 1]", self.layer_decay)
        expect(isinstance(self.rates, Mapping), "optimizer.rates", "factors by name, such as {head: 10}", self.rates)
        for name, rate in self.rates.items():
            expect_positive(f"optimizer.rates.{name}", rate)

    def of(self, model: nn.Module, named: Sequence[Named]) -> list[dict[str, Any]]:
        """What they say of each parameter."""
        depth = depths(model) if self.layer_decay != 1 or self.rates else {}
        rates = dict.fromkeys((each.name for each in named), 1.0)
        for pattern, rate in self.rates.items():
            meant = meant_by(str(pattern), model, list(rates), depth, "optimizer.rates")
            rates |= dict.fromkeys(meant, float(rate))
        said: list[dict[str, Any]] = []
        for each in named:
            rate = rates[each.name] * self.layer_decay ** depth.get(each.name, 0)
            said.append(({"weight_decay": 0.0} if each.kind in self.no_decay else {}) | ({"rate": rate} if rate != 1 else {}))
        return said


def parameter_groups(
    model: nn.Module, rules: GroupRules, options: Iterable[Option | type[Option]] = ()
) -> list[dict[str, Any]]:
    """Groups of the parameters of which the same is said, each with what is said; `rate` is a factor on the learning rate.

    The groups stand in the order of the model, those with the full rate first, of which the first is logged, and
    among them those of which nothing else is said.
    """
    named = named_parameters(model)
    said = rules.of(model, named)
    owner: list[dict[str, str]] = [dict.fromkeys(each, "optimizer") for each in said]
    for option in implementers(options, "group_parameters"):
        for index, further in enumerate(option.group_parameters(named)):
            for key, value in further.items():
                if key == "rate":
                    value = value * said[index].get("rate", 1.0)
                elif said[index].setdefault(key, value) != value:
                    raise RecipeError(
                        f"{called(option)} wants {key}={value} for {named[index].name}, and {owner[index][key]} "
                        f"{key}={said[index][key]}: leave one of the two out"
                    )
                said[index][key] = value
                owner[index].setdefault(key, called(option))
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each, settings in zip(named, said, strict=True):
        place = groups.setdefault(tuple(sorted(settings.items())), {"params": [], **settings})
        place["params"].append(each.parameter)
    return sorted(groups.values(), key=lambda group: (group.get("rate", 1.0) != 1, len(group) > 1))


def make_with_groups(make: Any, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer, with the learning rate of each group times its `rate`.

    Raises:
        RecipeError: it makes groups of its own, with parameters of different rates in one.
    """
    rates = {id(parameter): rate for group in groups for rate in [group.pop("rate", 1.0)] for parameter in group["params"]}
    optimizer = make(groups)
    for group in optimizer.param_groups:
        found = {rates.get(id(parameter), 1.0) for parameter in group["params"]}
        if len(found) > 1:
            raise RecipeError(
                f"{type(optimizer).__name__} is made with parameter groups of its own, in one of which learning rates would differ: "
                f"leave layer_decay and rates out, or make the optimizer of the groups that it is given"
            )
        if found and found != {1.0}:
            group["lr"] = group["lr"] * found.pop()
    return optimizer
