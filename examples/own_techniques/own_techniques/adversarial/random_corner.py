"""Perturbations of a given size in a random direction."""

from __future__ import annotations

from dataclasses import replace

import torch

from plugins.base import Batch, Module, Plugin, Stage, expect_nonnegative


class RandomCorner(Plugin):
    """Train on a random corner of the cube around each sample: what an attack costs, without looking at the gradient.

    x ← x + ε · s with s uniform in {−1, 1}, clamped to the range of valid inputs where there is one.

    Args:
        eps: ε ≥ 0, in the units of the inputs; 0 is an exact no-op.

    Source: Goodfellow et al., "Explaining and Harnessing Adversarial Examples", 2015 (section 5, as a control experiment).
    """

    stage = Stage.ADVERSARIAL
    off = {"eps": 0.0}

    def __init__(self, eps: float = 0.1) -> None:
        expect_nonnegative("eps", eps)
        self.eps = eps

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Move each sample."""
        if self.eps == 0:
            return batch
        drawn = torch.randint(2, batch.x.shape, device=batch.x.device, generator=module.generator(self.option))
        moved = batch.x + self.eps * (2 * drawn - 1).to(batch.x.dtype)
        valid = module.setting.valid_range
        return replace(batch, x=moved.clamp(*valid) if valid else moved)
