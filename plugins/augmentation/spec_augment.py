"""SpecAugment (Park et al., 2019)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._steps import OfSteps, ranks
from plugins.base import Batch, Module, Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def strips(
    lengths: Int[Tensor, " samples"], widest: int, share: float, drawn: Float[Tensor, "2 samples strips"]
) -> tuple[Int[Tensor, "samples strips"], Int[Tensor, "samples strips"]]:
    """Where strips along an axis begin and end.

    A strip is w ~ U{0, …, min(widest, ⌊share · L⌋)} wide and begins at one of 0, …, L − w, all equally likely, in an axis of length L, which is
    that of each sample; both follow from uniform numbers in [0, 1).
    """
    length = lengths.unsqueeze(1)
    most = (share * length.to(torch.float32)).floor().long().clamp(max=widest)
    width = (drawn[0] * (most + 1)).long().minimum(most)
    room = length - width
    start = (drawn[1] * (room + 1)).long().minimum(room)
    return start, start + width


def within(
    places: Int[Tensor, "#samples axis"], start: Int[Tensor, "samples strips"], stop: Int[Tensor, "samples strips"]
) -> Bool[Tensor, "samples axis"]:
    """Which places of an axis are in one of the strips at least."""
    places = places.unsqueeze(2)
    return ((places >= start.unsqueeze(1)) & (places < stop.unsqueeze(1))).any(2)


def masked(
    x: Float[Tensor, "samples steps *bands"],
    valid: Bool[Tensor, "samples steps"],
    hidden: Bool[Tensor, "samples steps *#bands"],
    fill: float | None = None,
) -> Float[Tensor, "samples steps *bands"]:
    """Numbers at steps that there are replaced where they are hidden: by `fill`, or by the mean of the sample over these steps."""
    there = valid.view(*valid.shape, *[1] * (x.ndim - 2))
    value: Tensor | float
    if fill is None:
        kept = torch.where(there, x, 0).float().flatten(1).sum(1)
        numbers = valid.sum(1).clamp(min=1) * x[0, 0].numel()
        value = (kept / numbers).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    else:
        value = fill
    return torch.where(hidden & there, value, x)


class SpecAugment(OfSteps):
    """Hide strips of time, and strips of frequency, of each spectrogram.

    A strip is w ~ U{0, …, min(W, ⌊share · L⌋)} wide, W = `time` of the L steps that the mask keeps, or `frequency` of the L bands, and anywhere
    among them; there are `strips` of each kind. What is hidden becomes the mean of the spectrogram, or `fill`. Steps and bands are those of
    inputs (steps, bands), and the last two dimensions of (channels, frequency, time). Without the paper's warping of time.

    Raises:
        Refusal: inputs without steps and bands: points, tokens, tables.

    Source: Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", Interspeech 2019.
    """

    stage = Stage.ERASING
    on_class_maps = True  # the labels of what is hidden stay right
    needs_bands, moves = True, False

    time: int = declare.count("widest strip of time", default=20, unit="steps", least=0, off=0)
    frequency: int = declare.count("widest strip of frequency", default=8, unit="bands", least=0, off=0)
    strips: int = declare.count("strips of each kind", default=2)
    share: float = declare.share("share of the steps, and of the bands, that a strip has at most", default=0.2)
    fill: float | None = declare.number("the value put in", default=None, null="the mean of the spectrogram")

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw strips for each spectrogram, and hide them."""
        generator, valid = module.generator(self.option), self.layout.valid(batch.x)
        size = (2, len(batch), self.strips)
        rank, _, lengths = ranks(valid)
        ends = strips(
            lengths, self.time, self.share, torch.rand(size, device=batch.device, generator=generator, dtype=torch.float32)
        )
        of_time, found = within(rank, *ends), []
        for x in self.layout.values(batch.x):
            numbers = torch.full_like(lengths, x.shape[-1])
            ends = strips(
                numbers,
                self.frequency,
                self.share,
                torch.rand(size, device=batch.device, generator=generator, dtype=torch.float32),
            )
            of_bands = within(torch.arange(x.shape[-1], device=x.device).unsqueeze(0), *ends)
            shape, between = valid.shape, [1] * (x.ndim - 3)
            hidden = of_time.view(*shape, *between, 1) | of_bands.view(len(x), 1, *between, -1)
            found.append(masked(x, valid, hidden, self.fill))
        return replace(batch, x=self.layout.put(batch.x, found))
