"""Dropout (Srivastava et al., 2014)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plugins.activations import Passage, passage
from plugins.base import Plugin, RecipeError, Stage, declare
from plugins.hidden import Site, hidden_sites, named_sites
from plugins.replacing import replace_module
from plugins.sites import ACTIVATIONS, DROPOUTS, attach, expect_training, find_sites, own_modules

if TYPE_CHECKING:
    from jaxtyping import Float


def dropout(x: Float[Tensor, "*shape"], p: float, mode: str = "inverted") -> Float[Tensor, "*shape"]:
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

    It acts on the activations from which a further layer leads to the output: an activation that is the model's output stays
    whole. Where the model has nn.Dropout of its own right behind an activation, modules and functions alike, that gets p and
    mode; dropout that the model has elsewhere stays as it is, and is told of.

    Raises:
        RecipeError: no hidden activation in the model, or none that matches `sites`; activations that
            cannot be acted on, such as functions called in the model's forward, and no `sites` that say where to act instead.

    Source: Srivastava et al., "Dropout", JMLR 2014; lecture B.
    """

    stage = Stage.LAYERS

    p: float = declare.share("probability that a unit is dropped", default=0.5, off=0.0)
    mode: str = declare.choice("inverted", "vanilla", default="inverted")
    sites: Sequence[str] | None = named_sites(
        "Names of dropout behind activations count too; of any other modules the outputs are dropped."
    )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put a dropout layer after each hidden activation, or change the model's own."""
        places = self._places(model)
        expect_training(self.state_key, model, [module for _, module in places])
        changed = [(name, module) for name, module in places if type(module) is nn.Dropout]
        for _, host in places:
            if type(host) is not nn.Dropout:
                attach(host, "dropout", DropoutLayer(self.p, self.mode))
        for _, module in changed:
            replace_module(model, module, DropoutLayer(self.p, self.mode).train(module.training))
        self.remarks = list(remarks(model, [name for name, _ in changed], self.p))
        return model

    def _places(self, model: nn.Module) -> list[Site]:
        if not hasattr(self, "setting"):
            return find_sites(model, ACTIVATIONS, "activation", self.sites)  # no sample can be sent through
        found = passage(model, self.setting.shape)
        return hidden_sites(model, found, self.state_key, self.sites, own_dropout(found))


def own_dropout(found: Passage) -> dict[object, Site]:
    """The model's own nn.Dropout right behind a hidden activation, by where that was made."""
    made = {place.made for place in found.hidden() if place.made is not None}
    behind = [place for place in found.dropouts if type(place.module) is nn.Dropout and place.taken in made]
    for place in behind:
        if any(other.module is place.module and other.taken not in made for other in found.dropouts):
            raise RecipeError(
                f"regularizer/dropout: the model's own dropout {place.name} stands behind an activation and elsewhere too: give each place "
                f"an nn.Dropout of its own"
            )
    return {place.taken: (place.name, place.module) for place in behind}


def remarks(model: nn.Module, changed: Sequence[str], p: float) -> Iterator[str]:
    """What becomes of the dropout that a model has of its own."""
    if changed:
        yield f"p={p:g} for the model's own dropout {_listed(changed)}"
    layers = [(name, module) for name, module in own_modules(model) if isinstance(module, DROPOUTS)]
    if left := [f"{name} (p={module.p:g})" for name, module in layers if module.p and name not in changed]:
        yield f"the model's own dropout {_listed(left)} stays as it is"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
