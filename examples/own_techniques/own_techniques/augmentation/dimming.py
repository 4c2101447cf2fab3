"""Images under less light."""

from __future__ import annotations

from dataclasses import replace

import torch

from plugins.base import Batch, Module, Plugin, Stage, declare


class Dimming(Plugin):
    """Take light away from each image, by a random share of its own.

    x ← u · x with u ~ U(1 − strength, 1] drawn for each sample.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep CNNs", 2012 (changes of intensity).
    """

    stage = Stage.COLOUR

    strength: float = declare.share("largest share that is taken away", default=0.5, off=0.0)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """A new batch; the old one is never written into."""
        drawn = torch.rand(len(batch), device=batch.x.device, generator=module.generator(self.option))
        light = (1 - self.strength * drawn).to(batch.x.dtype)
        return replace(batch, x=batch.x * light.view(-1, *[1] * (batch.x.ndim - 1)))
