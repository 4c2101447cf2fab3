"""The initial weights that the framework gives."""

from __future__ import annotations

from plugins.base import Plugin, Stage


class FrameworkInit(Plugin):
    """Leave the weights as the model's own constructor drew them: in torch U(−1/√n_in, 1/√n_in) for linear layers."""

    stage = Stage.INIT
