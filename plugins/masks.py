"""Which places of sequences, and of sets of points, a mask among the inputs keeps, for what looks at hidden activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from plugins.inputs import Inputs

if TYPE_CHECKING:
    from jaxtyping import Bool


def places_of(x: Inputs, masks: Sequence[str]) -> Tensor | None:
    """Which places of sequences there are, (samples, length), by the first of the masks among the inputs; None where there is none."""
    return None if isinstance(x, Tensor) or not masks else x[masks[0]] > 0


def has_channels_first(model: nn.Module) -> bool:
    """Whether places stand behind the channels, as in models of sets of points."""
    return any(callable(getattr(part, "parts", None)) for part in model.modules())


def places_kept(
    mask: Bool[Tensor, "samples length"], mine: Sequence[int], theirs: Sequence[int], channels_first: bool
) -> Bool[Tensor, "samples ..."] | None:
    """The mask in a shape that broadcasts over features of these shapes; None where they have no dimension of places.

    That is one as long as the mask in both: the first behind the samples, with `channels_first` the first behind the channels.
    """
    found = [axis for axis, sizes in enumerate(zip(mine, theirs, strict=True)) if axis and sizes == (mask.shape[1],) * 2]
    if not found or len(mine) < 3 or mine[0] != len(mask):
        return None
    axis = 2 if channels_first and 2 in found else found[0]
    return mask.view(len(mask), *(mask.shape[1] if axis == each else 1 for each in range(1, len(mine))))
