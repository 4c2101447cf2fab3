"""The residual branches of a model, found by its additions: most of those are no modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from plugins.activations import Passage, Place, passage
from plugins.base import RecipeError

OWN = ("StochasticDepth", "DropPath")  # what torchvision and timm call a layer that drops branches
# What may stand between the last module of a branch and the addition: each commutes with a factor for each sample.
SCALING = ("Mul", "View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Clone", "ToCopy", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Branch:
    """A residual branch, by the module that returns what is added to the shortcut; `own` says that it drops branches itself."""

    name: str
    module: nn.Module
    own: bool = False


@dataclass
class Branches:
    """The residual branches in the order of the forward pass, and the additions in which no operand is known to be the shortcut."""

    found: list[Branch]
    undecided: list[str]


def residual_branches(model: nn.Module, shape: Sequence[int], option: str) -> Branches:
    """The branches f of all h + f(h) in a model, additions by functions and operators included, in their order.

    Blank samples pass through the model. Of the operands of an addition the shortcut is the one from which a path of at most one
    layer and no activation leads back to where the other comes from too; that other is the branch if there is a layer or a norm on
    it. The module that returns the branch is where it can be acted on.

    Args:
        model: to look at.
        shape: of a sample.
        option: "group/option" of the technique that asks, for the messages.

    Raises:
        RecipeError: there is no branch, or one that no module of its own returns.
    """
    met = passage(model, shape)
    graph = _Graph(model, met)
    ends: dict[Any, Place] = {}
    undecided: list[str] = []
    for place in met.additions:
        operands = graph.before(place.made)
        if len(operands) != 2:
            continue
        shortcut = graph.shortcut(*operands)
        if shortcut is not None:
            graph.sums[place.made] = shortcut
            ends[next(operand for operand in operands if operand is not shortcut)] = place
        elif graph.fork(*operands):
            undecided.append(place.name or type(model).__name__)
    hosts = {end: graph.host(end) for end in ends}
    if lost := list(dict.fromkeys(ends[end].name or type(model).__name__ for end, host in hosts.items() if host is None)):
        raise RecipeError(
            f"{option}: no module returns the residual branch that is added in {', '.join(lost[:3])}"
            f"{f' and {len(lost) - 3} more' if len(lost) > 3 else ''}, so that no layer can be put behind it: let it end with a module of its "
            f"own, such as nn.Identity()"
        )
    chosen = {end: host for end, host in hosts.items() if host is not None}
    for end, host in list(chosen.items()):  # a module with which several branches end acts on all of them
        if chosen[end] is host:
            chosen |= {call.made: call for call in met.calls if call.module is host.module and call.made in chosen}
    _expect_alone(met, option, chosen.values())
    branches = {id(host.module): Branch(host.name, host.module, _is_own(host)) for host in chosen.values()}
    if not branches:
        raise RecipeError(
            f"{option}: no residual branch in {type(model).__name__}: looked for additions h + f(h)"
            f"{', and cannot tell the shortcut in ' + undecided[0] if undecided else ''}; choose another model, such as model=resnet18, or "
            f"leave it out"
        )
    return Branches(list(branches.values()), list(dict.fromkeys(undecided)))


def _is_own(place: Place) -> bool:
    return type(place.module).__name__ in OWN


def _expect_alone(met: Passage, option: str, hosts: Iterable[Place]) -> None:
    """Refuse a module that returns something else than branches too, or does not know samples from one another."""
    modules = {id(place.module): {other.made for other in hosts if other.module is place.module} for place in hosts}
    for place in met.calls:
        if id(place.module) in modules and place.made not in modules[id(place.module)]:
            raise RecipeError(
                f"{option}: {place.name}, with which a residual branch ends, is called elsewhere too: give the end of the branch a module "
                f"of its own, such as nn.Identity()"
            )
        if id(place.module) in modules and place.shape[:1] != (2,):
            raise RecipeError(
                f"{option}: the samples of a batch do not stand in the first dimension of what {place.name} returns, with which a residual "
                f"branch ends: take batch_first=True, or end the branch with a module where they do"
            )


class _Graph:
    """Where a model's output comes from: autograd's graph, of which only what depends on the input is looked at."""

    def __init__(self, model: nn.Module, met: Passage) -> None:
        self.met = met
        self.sums: dict[Any, Any] = {}  # where a residual sum is made, and its shortcut
        self._activations = {place.made for place in met.activations}
        self._parameters = {id(parameter) for parameter in model.parameters()}
        self._before: dict[Any, list[Any]] = {}
        self._uses: dict[Any, int] = dict.fromkeys(met.outputs, 1)
        for node in _inputs_first(met.outputs):
            before = [other for other, _ in node.next_functions if other in self._before]
            if before or self._is_input(node):
                self._before[node] = before
                for other in before:
                    self._uses[other] = self._uses.get(other, 0) + 1

    def _is_input(self, node: Any) -> bool:
        if (variable := getattr(node, "variable", None)) is not None:
            return id(variable) not in self._parameters
        return bool(node.name().startswith("Embedding"))  # of tokens, through which no graph leads

    def before(self, node: Any) -> list[Any]:
        """What a place takes in, as far as that depends on the input."""
        return self._before.get(node, [])

    def behind(self, node: Any) -> set[Any]:
        """All that a place depends on, itself included."""
        seen: set[Any] = set()
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += self.before(node)
        return seen

    def works(self, nodes: Iterable[Any]) -> bool:
        """Whether there is a layer or a norm at one of the places."""
        return any(node in self.met.norms or self.met.is_layer(node) for node in nodes)

    def fork(self, first: Any, second: Any) -> bool:
        """Whether two operands come from one place, and not both without a layer."""
        one, other = self.behind(first), self.behind(second)
        return bool(one & other) and self.works(one ^ other)

    def shortcut(self, first: Any, second: Any) -> Any:
        """Which of two operands of an addition is the shortcut; None where that cannot be told."""
        layers = {}
        for operand, other in ((first, second), (second, first)):
            reached = self._way_back(operand, behind := self.behind(other))
            if reached and self.works(behind - self.behind(reached[0])):
                layers[operand] = reached[1]
        if len(layers) == 2 and len(set(layers.values())) == 1:
            return None
        return min(layers, key=layers.__getitem__, default=None)

    def _way_back(self, node: Any, goal: set[Any]) -> tuple[Any, int] | None:
        """The first of `goal` on the way back from a place, and the layers until there; None if there is no plain way."""
        layers = 0
        while node not in goal:
            before = [self.sums[node]] if node in self.sums else list(set(self.before(node)))
            layers += self.met.is_layer(node)
            if len(before) != 1 or layers > 1 or node in self._activations:
                return None
            node = before[0]
        return node, layers

    def host(self, end: Any) -> Place | None:
        """The module that returns a branch; where several do, one that drops branches itself, or the innermost that makes it."""
        while self._uses.get(end) == 1:
            calls = [place for place in self.met.calls if place.made is end]
            if calls:
                makers = [place for place in calls if place.taken is not end]
                return next((place for place in calls if _is_own(place)), (makers or calls)[0])
            before = self.before(end)
            if len(before) != 1 or end.name().rstrip("0123456789").removesuffix("Backward") not in SCALING:
                return None
            end = before[0]
        return None


def _inputs_first(ends: Iterable[Any]) -> list[Any]:
    """All places of a graph, each behind those that it depends on."""
    order: list[Any] = []
    seen: set[Any] = set()
    waiting = [(end, False) for end in ends if end is not None]
    while waiting:
        node, done = waiting.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(before, False) for before, _ in node.next_functions if before is not None]
    return order
