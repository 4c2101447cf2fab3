"""Noise on the features of a table."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from plugins.augmentation._table import truth_values
from plugins.base import Batch, Module, Plugin, Setting, Stage, declare
from plugins.preprocessing._layer import moments


def noise_of(x: Tensor, deviations: Tensor, generator: torch.Generator) -> Tensor:
    """x + s ε, ε ~ N(0, 1) for each number, with a deviation s for each feature."""
    drawn = torch.randn(x.shape, device=x.device, generator=generator, dtype=torch.float32)
    return x + (drawn * deviations).to(x.dtype)


class FeatureNoise(Plugin):
    """Add Gaussian noise to each feature, in proportion to how far it spreads.

    x'ⱼ = xⱼ + std · sⱼ · ε, ε ~ N(0, 1), sⱼ the standard deviation of feature j in the training split. A feature that is 0 or 1 in all of it,
    such as a category, stays as it is. A feature is a column of a table, or one of the numbers of another sample; images stay in [0, 1], if
    they are.

    Raises:
        Refusal: inputs by name, class maps.

    Source: Sietsma & Dow, "Creating artificial neural networks that generalize", Neural Networks 1991.
    """

    stage = Stage.NOISE
    on_named_inputs = False

    std: float = declare.number("deviation of the noise, as a share of that of the feature", default=0.1, least=0, off=0.0)

    def prepare(self, setting: Setting) -> None:
        """Learn the range of the inputs, and how far features spread in the training split; where a finished run is loaded nothing is trained."""
        super().prepare(setting)
        self.valid = setting.valid_range
        self._spread = torch.ones(tuple(setting.shape), dtype=torch.float32)
        if (pieces := setting.training_inputs) is not None:
            flat = lambda: (piece.flatten(1) for piece in pieces())  # noqa: E731
            variance = moments(flat(), (self._spread.numel(),))[1].cpu()
            flags, _, _ = truth_values(pieces)
            self._spread = variance.sqrt().masked_fill(flags.cpu(), 0).float().view_as(self._spread)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw noise for each number of each sample."""
        self._spread = self._spread.to(batch.x.device, non_blocking=True)
        x = noise_of(batch.x, self.std * self._spread, module.generator(self.option))
        return replace(batch, x=x if self.valid is None else x.clamp(*self.valid))
