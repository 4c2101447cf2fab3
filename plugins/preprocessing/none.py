"""No preprocessing."""

from __future__ import annotations

from plugins.base import Plugin, Stage


class NoPreprocessing(Plugin):
    """Leave the inputs as they are: images in [0, 1], tables in their own units.

    Source: lecture B, which compares with it.
    """

    stage = Stage.PREPROCESSING
