"""Images under less light."""

from __future__ import annotations

from dataclasses import replace

import torch

from plugins.base import Batch, Module, Plugin, Stage, expect_probability


class Dimming(Plugin):
    """Take light away from each image, by a random share of its own.

    x ← u · x with u ~ U(1 − strength, 1] drawn for each sample.

    Args:
        strength: the largest share that is taken away, in [0, 1]; 0 is an exact no-op.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep CNNs", 2012 (changes of intensity).
    """

    stage = Stage.COLOUR
    off = {"strength": 0.0}

    def __init__(self, strength: float = 0.5) -> None:
        expect_probability("strength", strength)
        self.strength = strength

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """A new batch; the old one is never written into."""
        if self.strength == 0:
            return batch
        drawn = torch.rand(len(batch), device=batch.x.device, generator=module.generator(self.option))
        light = (1 - self.strength * drawn).to(batch.x.dtype)
        return replace(batch, x=batch.x * light.view(-1, *[1] * (batch.x.ndim - 1)))
