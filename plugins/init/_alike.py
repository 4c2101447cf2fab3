"""Weights that are all the same, whose units never become different."""

from __future__ import annotations

import warnings

from torch import nn

from plugins.init._draw import WeightInit


class AlikeInit(WeightInit):
    """Weights that are all the same: a warning says what becomes of them."""

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Set all layers, and warn."""
        if not self.setting.restored:
            warnings.warn(
                f"{self.state_key}: the units of a layer start alike, get the same gradient and stay identical; init=framework draws "
                f"weights at random",
                stacklevel=1,
            )
        return super().transform_model(model)
