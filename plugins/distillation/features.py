"""Distillation of hidden activations (FitNets, Romero et al., 2015; attention transfer, Zagoruyko & Komodakis, 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugins.base import Batch, Module, RecipeError, Setting, declare
from plugins.distillation._layers import Looked, expect_comparable, inner
from plugins.distillation._teacher import TEACHER, TaughtByRun
from plugins.hidden import Site
from plugins.inputs import Inputs, masks_in
from plugins.masks import has_channels_first, places_kept, places_of
from plugins.recording import Recording
from plugins.sites import own_modules

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def feature_loss(
    student: Float[Tensor, " samples *units"],
    teacher: Float[Tensor, " samples *units"],
    there: Bool[Tensor, " samples *broadcast"] | None = None,
) -> Float[Tensor, " samples"]:
    """The mean of (h_teacher − h)² over the units, of each sample; over those at places that there are, where a mask tells them."""
    squares = (teacher.float() - student.float()).square()
    if there is None:
        return squares.flatten(1).mean(1)
    kept = there.expand_as(squares)
    return squares.masked_fill(~kept, 0).flatten(1).sum(1) / kept.flatten(1).sum(1).clamp_min(1)


def attention_loss(
    student: Float[Tensor, "samples channels *places"],
    teacher: Float[Tensor, "samples others *places"],
    there: Bool[Tensor, " samples *broadcast"] | None = None,
) -> Float[Tensor, " samples"]:
    """‖q / ‖q‖ − q_teacher / ‖q_teacher‖‖² of each sample, with q the mean over the channels of h² at each place that there is."""
    maps = [h.float().square().mean(1, keepdim=True) for h in (student, teacher)]
    maps = maps if there is None else [q.masked_fill(~there, 0) for q in maps]
    return torch.sub(*(F.normalize(q.flatten(1), dim=1) for q in maps)).square().sum(1)


def _are_layers(value: object) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(name, str) for pair in value.items() for name in pair)
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(name, str) for name in value)


class FeatureDistillation(TaughtByRun):
    """Have hidden layers give what those of a trained run give.

    J̃ = J + weight · E Σ_l d(h_l, h_l of the teacher), with the mean over samples, weighted where they have weights. Of layers of one shape
    d = mean over the units of (h − h_teacher)². Of maps with as many places and another number of channels d = ‖q/‖q‖ − q_t/‖q_t‖‖²,
    where q is the mean over the channels of h² at each place, a map of attention. Other shapes are refused: no layer is trained that
    would lead from one to the other. Places of a sequence that a mask leaves out count in neither: they are in the first dimension of a
    layer that is as long as the mask, in models of points behind the channels. The teacher sees the same batch, after all augmentation,
    once a step: one forward pass.

    Raises:
        RecipeError: no such run, one of other samples; no module of such a name, in one of the two; shapes that cannot be compared.
        Refusal: no teacher.

    Source: Romero et al., "FitNets: hints for thin deep nets", ICLR 2015; Zagoruyko & Komodakis, "Paying more attention to attention",
    ICLR 2017.
    """

    on_shards = True
    refuses = {
        "regularizer/patch_dropout": "the tokens that it leaves to the model would be compared with others of the teacher; leave one of the two out"
    }

    teacher: str | None = TEACHER
    layers: Sequence[str] | Mapping[str, str] | None = declare.value(
        "names of modules that both models have, with wildcards for hidden activations, or {HERE: THERE} where the teacher's differ",
        "a list of names, or a mapping of names to those of the teacher",
        _are_layers,
        default=None,
        null="the last hidden activation of each",
    )
    weight: float = declare.number("factor of the distance of the features", default=1.0, least=0, off=0.0)

    def prepare(self, setting: Setting) -> None:
        """Load the teacher, and forget the places of another model."""
        self._pairs: list[tuple[nn.Module, nn.Module]] = []
        super().prepare(setting)

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave the model as it is, and find the layers in both."""
        if self._model is None:
            return model
        here, there = (Looked(inner(each), self.setting.shape) for each in (model, self._model.model))
        found = self._matched(here, there)
        for (name, _), (other, _) in found:
            expect_comparable(name, here.shapes(name), other, there.shapes(other))
        self._pairs = [(mine, theirs) for (_, mine), (_, theirs) in found]
        self.recorded = [module for module, _ in self._pairs]
        self._seen = Recording([module for _, module in self._pairs])
        self._channels_first = has_channels_first(model)
        self._masks = masks_in(self.setting.shape, model)
        return model

    def _matched(self, here: Looked, there: Looked) -> list[tuple[Site, Site]]:
        if self.layers is None:
            return [(here.hidden()[-1], there.hidden()[-1])]
        if isinstance(self.layers, Mapping):
            names = [(site, other) for name, other in self.layers.items() for site in here.hidden([name])]
        else:
            names = [(site, site[0]) for site in here.hidden(self.layers)]
        known = dict(own_modules(there.model))
        for (name, _), other in names:
            if other not in known:
                has = ", ".join(name for name, _ in there.hidden())
                raise RecipeError(
                    f"distillation.layers: {name} is to learn from {other}, which the teacher has not; its activations are {has}: type "
                    f"distillation.layers={{{name}: NAME}}"
                )
        return [(site, (other, known[other])) for site, other in names]

    def ask(self, model: Any, x: Inputs) -> list[list[Tensor]]:
        """The teacher's features, of each call of each layer."""
        with self._seen.opened():
            model.outputs(x)
            return [list(self._seen[part]) for _, part in self._pairs]

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The distance of the features of this pass."""
        if (taught := batch.extra.get(self.state_key)) is None:
            return None
        pairs = [
            pair
            for (part, _), theirs in zip(self._pairs, taught, strict=True)
            for pair in zip(module.recorded[part], theirs, strict=True)
        ]
        mask = places_of(batch.x, self._masks)
        values = torch.stack([self._apart(h, taught, mask) for h, taught in pairs]).sum(0)
        found = module.mean(values, batch)
        self.record(module, "loss", found)
        return self.weight * found

    def _apart(self, h: Tensor, taught: Tensor, mask: Tensor | None) -> Tensor:
        distance = feature_loss if h.shape == taught.shape else attention_loss
        return distance(h, taught, None if mask is None else places_kept(mask, h.shape, taught.shape, self._channels_first))
