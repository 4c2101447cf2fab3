"""No norm layers."""

from __future__ import annotations

from torch import nn

from plugins.base import Plugin, Stage
from plugins.normalization._place import place_norms


class NoNormalization(Plugin):
    """Take the norm layers out of the model, with their scales and shifts; a model without any stays as it is.

    Layers in front of a norm often have no bias; none is added. An activation that a norm layer has within stays.
    """

    stage = Stage.NORMALIZATION

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Take the layers out."""
        place_norms(model, self.setting.shape, lambda features, places: None, fill=False)
        return model
