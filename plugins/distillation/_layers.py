"""The hidden layers of a model that learn from those of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from plugins.activations import passage
from plugins.base import RecipeError
from plugins.hidden import Site, hidden_sites


def inner(model: nn.Module) -> nn.Module:
    """A model without the layers that were put in front of it and behind it, so that its modules have the names it gave them."""
    while [name for name, _ in model.named_children()] == ["model"]:
        model = model.model  # type: ignore[assignment]
    return model


class Looked:
    """A model, and what blank samples met in it."""

    def __init__(self, model: nn.Module, shape: Any) -> None:
        self.model, self.found = model, passage(model, shape)

    def hidden(self, names: Sequence[str] | None = None) -> list[Site]:
        """The modules that return its hidden activations, those that are named, in the order of their calls."""
        return hidden_sites(self.model, self.found, "distillation/features", names, narrows=False)

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """What a module gives for a sample, in each call."""
        return [place.shape[1:] for place in self.found.calls if place.name == name]


def expect_comparable(name: str, mine: list[tuple[int, ...]], other: str, theirs: list[tuple[int, ...]]) -> None:
    """Refuse layers of which neither the units nor maps of attention can be compared."""
    each = list(zip(mine, theirs, strict=False))
    maps = [a == b or (len(a) == len(b) > 1 and a[1:] == b[1:]) for a, b in each]
    if not (len(mine) == len(theirs) == len(each) and each and all(maps)):
        here, there = (", ".join(map(str, shapes)) or "nothing" for shapes in (mine, theirs))
        raise RecipeError(
            f"distillation.layers: {name} gives {here}, and {other} of the teacher {there}: name layers of one shape, or maps of one size, "
            f"in distillation.layers=[NAME]"
        )
