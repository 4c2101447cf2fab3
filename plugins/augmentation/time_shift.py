"""Random shifts in time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._steps import OfSteps, ranks, taken
from plugins.base import Batch, Module, Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def sources(valid: Bool[Tensor, "samples steps"], shares: Float[Tensor, " samples"]) -> Int[Tensor, "samples steps"]:
    """Where each step comes from, when those that there are move on by a share of their number, the last ones to the front."""
    rank, order, length = ranks(valid)
    least = length.clamp(min=1).unsqueeze(1)
    shift = (shares * length).round().long().unsqueeze(1)
    moved = order.gather(1, (rank - shift).remainder(least))
    return torch.where(valid, moved, torch.arange(valid.shape[1], device=valid.device))


class TimeShift(OfSteps):
    """Shift each sequence in time; what leaves it at the end comes back at the front.

    x'[t] = x[(t − s) mod T], s = round(u T), u ~ U[−fraction, fraction], T the steps that the mask keeps: an exact copy of them, and what it
    leaves out stays where it is. Steps are those of inputs (steps, …), and the last dimension of (channels, frequency, time).

    Raises:
        Refusal: inputs without steps: points, tokens, columns of a csv file; class maps.

    Source: Salamon & Bello, "Deep Convolutional Neural Networks and Data Augmentation for Environmental Sound Classification", IEEE
    Signal Processing Letters 2017.
    """

    stage = Stage.GEOMETRY

    fraction: float = declare.share("largest shift in either direction, as a share of the steps", default=0.2, off=0.0)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw a shift for each sample, and move its steps."""
        generator = module.generator(self.option)
        shares = self.fraction * (2 * torch.rand(len(batch), device=batch.device, generator=generator, dtype=torch.float32) - 1)
        places = sources(self.layout.valid(batch.x), shares)
        return replace(batch, x=self.layout.put(batch.x, [taken(value, places) for value in self.layout.values(batch.x)]))
