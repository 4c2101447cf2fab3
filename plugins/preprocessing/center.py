"""Mean subtraction."""

from __future__ import annotations

import torch
from torch import nn

from plugins.base import Plugin, Stage
from plugins.preprocessing._layer import Affine, moments, per_parameter, statistics_shape


class CenterInputs(Plugin):
    """Subtract the mean of the training split.

    x ← x − mean, where the mean is over the training samples only, and the same for every split.

    Raises:
        RecipeError: training inputs that are not finite.

    Source: lectures A, B, D and E.
    """

    stage = Stage.PREPROCESSING
    on_named_inputs = False

    per: str | None = per_parameter()

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layer in front, fitted; its values come from the checkpoint where a finished run is loaded."""
        shape = statistics_shape(self.setting.shape, self.per)
        inputs = self.setting.training_inputs
        mean = moments(inputs(), shape)[0] if inputs else torch.zeros(shape)
        return Affine(model, mean, torch.ones(shape))
