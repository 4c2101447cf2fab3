"""Contrast that rises as the training goes on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from plugins.base import Batch, Module, Plugin, Stage, declare


def faded(x: Tensor, contrast: float) -> Tensor:
    """m + c · (x − m) with the mean m of each sample."""
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))
    return torch.lerp(mean.expand_as(x), x, contrast)


class FadingIn(Plugin):
    """Train on samples of little contrast first: details come in as the training goes on.

    x ← m + c · (x − m) with the mean m of each sample, and c rising from `start` at the first step to 1 at the last.

    Source: Sinha, Garg & Larochelle, "Curriculum by smoothing", NeurIPS 2020 (whose network sees more and more detail).
    """

    stage = Stage.COLOUR
    on_class_maps = True

    start: float = declare.share("the contrast of the first step", default=0.2, off=1.0)

    def same_so_far(self, done: int, before: int, now: int) -> bool:
        """Only the first step has a contrast that does not depend on the steps in all."""
        return done <= 1

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """A function of the steps done: no state."""
        done, total = module.progress
        contrast = self.start + (1 - self.start) * (done / total if total else 0.0)
        return replace(batch, x=faded(batch.x, contrast))
