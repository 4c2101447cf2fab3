"""Dropout (Srivastava et al., 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plugins.base import Plugin, Stage, expect_choice, expect_probability
from plugins.sites import ACTIVATIONS, attach, find_sites


def dropout(x: Tensor, p: float, mode: str = "inverted") -> Tensor:
    """Zero each unit with probability p; `inverted` divides what is kept by 1 − p. Shape kept."""
    if p == 0:
        return x
    mask = torch.empty_like(x).bernoulli_(1 - p)
    if mode == "inverted" and p < 1:
        mask.div_(1 - p)
    return x * mask


class DropoutLayer(nn.modules.dropout._DropoutNd):
    """The layer that :class:`Dropout` puts after an activation."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__(p)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """Drop in training; in vanilla mode scale by 1 − p at test."""
        if self.training:
            return dropout(x, self.p, self.mode)
        return x * (1 - self.p) if self.mode == "vanilla" else x


class Dropout(Plugin):
    """Drop hidden units at random during training.

    h ← m ⊙ h / (1 − p) with m ~ Bernoulli(1 − p) in training and h at test (`inverted`), or
    h ← m ⊙ h in training and (1 − p) h at test (`vanilla`).

    Args:
        p: probability that a unit is dropped, in [0, 1]; 0 is an exact no-op.
        mode: inverted | vanilla.
        sites: names of activation modules to act on, with wildcards; all of them when left out.

    Raises:
        RecipeError: p or mode out of range; no activation in the model, or none that matches `sites`.

    Source: Srivastava et al., "Dropout", JMLR 2014; lecture B.
    """

    stage = Stage.LAYERS
    off = {"p": 0.0}

    def __init__(self, p: float = 0.5, mode: str = "inverted", sites: Sequence[str] | None = None) -> None:
        expect_probability("p", p)
        expect_choice("mode", mode, ["inverted", "vanilla"])
        self.p, self.mode, self.sites = p, mode, sites

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put a dropout layer after each activation."""
        for _, host in find_sites(model, ACTIVATIONS, "activation", self.sites):
            attach(host, "dropout", DropoutLayer(self.p, self.mode))
        return model
