"""The hidden layers of a model that learn from those of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from plugins.activations import passage
from plugins.base import RecipeError
from plugins.hidden import Site, hidden_sites
from plugins.inputs import Inputs

if TYPE_CHECKING:
    from jaxtyping import Bool


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


def places_of(x: Inputs, masks: Sequence[str]) -> Tensor | None:
    """Which places of sequences there are, (samples, length), by the first of the masks among the inputs; None where there is none."""
    return None if isinstance(x, Tensor) or not masks else x[masks[0]] > 0


def places_kept(
    mask: Bool[Tensor, "samples length"], mine: Sequence[int], theirs: Sequence[int], channels_first: bool
) -> Bool[Tensor, "samples ..."] | None:
    """The mask in a shape that broadcasts over features of these shapes; None where they have no dimension of places.

    That is one as long as the mask in both: the first behind the samples, with `channels_first` the first behind the channels.
    """
    found = [axis for axis, sizes in enumerate(zip(mine, theirs, strict=True)) if axis and sizes == (mask.shape[1],) * 2]
    if not found or len(mine) < 3:
        return None
    axis = 2 if channels_first and 2 in found else found[0]
    return mask.view(len(mask), *(mask.shape[1] if axis == each else 1 for each in range(1, len(mine))))
