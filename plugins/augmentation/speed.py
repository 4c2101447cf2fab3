"""Speed perturbation (Ko et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._images import between
from plugins.augmentation._steps import OfSteps, ranks, taken
from plugins.base import Batch, Module, Stage, declare, expect

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def stretched(
    values: Sequence[Tensor], valid: Bool[Tensor, "samples steps"], factors: Float[Tensor, " samples"]
) -> tuple[list[Tensor], Bool[Tensor, "samples steps"]]:
    """Inputs (samples, steps, …) played faster by a factor, and which steps there are then.

    Step t is what stands at min(factor · t, T − 1) among the T steps that there are, between two of them a mean weighted by nearness.
    """
    _, order, length = ranks(valid)
    last = (length - 1).clamp(min=0).unsqueeze(1)
    place = factors.unsqueeze(1) * torch.arange(valid.shape[1], device=valid.device, dtype=factors.dtype)
    there = (place <= last) & (length > 0).unsqueeze(1)
    place = place.minimum(last.to(place.dtype))
    first = place.floor().long()
    before, after = order.gather(1, first), order.gather(1, (first + 1).minimum(last))
    share = place - first
    found = []
    for value in values:
        near = share.to(value.dtype).view(*share.shape, *[1] * (value.ndim - 2))
        found.append(torch.lerp(taken(value, before), taken(value, after), near))
    return found, there


class SpeedPerturbation(OfSteps):
    """Play each sequence faster or slower.

    x'[t] = x[a t], a ~ U[low, high], between two steps a mean weighted by nearness. With a mask, T steps become 1 + ⌊(T − 1) / a⌋, as far as
    there is room, which stand at the front; others are 0 and left out. Without one the last step is held where there are no more. Steps are
    those of inputs (steps, …), and the last dimension of (channels, frequency, time).

    Raises:
        RecipeError: low above high.
        Refusal: inputs without steps: points, tokens, columns of a csv file; class maps.

    Source: Ko, Peddinti, Povey & Khudanpur, "Audio augmentation for speech recognition", Interspeech 2015.
    """

    stage = Stage.GEOMETRY

    low: float = declare.number("smallest factor of the speed", default=0.9, above=0, off=1.0)
    high: float = declare.number("largest factor of the speed", default=1.1, above=0, off=1.0)

    def __post_init__(self) -> None:
        """Refuse ends in the wrong order."""
        expect(self.low <= self.high, "low", f"at most high, {self.high:g}", self.low)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw a factor for each sample, and change its speed."""
        factors = between([self.low, self.high], len(batch), batch.device, module.generator(self.option))
        layout = self.layout
        values, valid = stretched(layout.values(batch.x), layout.valid(batch.x), factors)
        if layout.mask is not None:
            values = [value.masked_fill(~valid.view(*valid.shape, *[1] * (value.ndim - 2)), 0) for value in values]
        return replace(batch, x=layout.put(batch.x, values, valid))
