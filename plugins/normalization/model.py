"""The model's own norm layers."""

from __future__ import annotations

from plugins.base import Plugin, Stage


class ModelNormalization(Plugin):
    """Leave the model's norm layers as they are, if it has any."""

    stage = Stage.NORMALIZATION
