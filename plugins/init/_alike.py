"""Weights that are all the same, whose hidden units never become different."""

from __future__ import annotations

import warnings

from torch import nn

from plugins.init._draw import WeightInit
from plugins.sites import weight_layers


class AlikeInit(WeightInit):
    """Weights that are all the same: a warning says what becomes of them."""

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Set all layers, and warn where a model with hidden units is trained from them."""
        drawn = self.setting.training_inputs is not None and not self.setting.restored
        if drawn and len(list(weight_layers(model))) > 1:
            warnings.warn(
                f"{self.state_key}: the hidden units of a layer start alike, get the same gradient and stay identical; init=framework draws "
                f"weights at random",
                stacklevel=1,
            )
        return super().transform_model(model)
