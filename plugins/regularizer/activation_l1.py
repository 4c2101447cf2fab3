"""The L1 norm penalty on activations, for sparse representations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plugins.activations import passage
from plugins.base import Batch, Module, Plugin, RecipeError, Stage, declare, per_label
from plugins.hidden import hidden_sites, named_sites
from plugins.inputs import masks_in
from plugins.masks import has_channels_first, places_kept, places_of

if TYPE_CHECKING:
    from jaxtyping import Float


def activation_l1_penalty(activations: Iterable[Tensor], weight: float, samples: int) -> Float[Tensor, ""]:
    """weight · Σ|h| / samples over all units of all activations, a scalar."""
    return weight / samples * torch.stack([h.abs().sum(dtype=torch.float32) for h in activations]).sum()


class ActivationL1(Plugin):
    """Make representations sparse: pull hidden units, rather than weights, towards zero.

    J̃(w) = J(w) + weight · E Σ|h|, with the mean over the samples of a batch and the sum over all units of all hidden activations, as
    they are before dropout; places that a mask leaves out count as 0. The activations are those of the pass that is trained on, not of the
    passes that craft an attack.

    It acts on the activations from which a further layer leads to the output, modules and functions alike.

    Raises:
        RecipeError: no hidden activation in the model, or none that matches `sites`; activations that no module
            returns, and no `sites` that say what to look at instead; with sampling=importance activations whose first dimension
            does not count the samples.

    Source: Goodfellow et al., Deep Learning, 7.10; lecture A.
    """

    stage = Stage.LAYERS  # where the names of the model are those that it was given
    on_named_inputs = True
    on_class_maps = True
    on_shards = True

    weight: float = declare.number("factor λ of the penalty λ · mean over the batch of Σ|h|", default=1e-5, least=0, off=0.0)
    sites: Sequence[str] | None = named_sites("Of any other modules the outputs are meant.")

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave the model as it is, and have its hidden activations recorded."""
        places = hidden_sites(model, passage(model, self.setting.shape), self.state_key, self.sites)
        self.recorded = [module for _, module in places]
        self._channels_first = has_channels_first(model)
        self._masks = masks_in(self.setting.shape, model)
        return model

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The penalty on the activations of this pass."""
        activations = [h for part in self.recorded for h in module.recorded[part]]
        if not activations:
            raise RecipeError(f"{self.state_key}: no module of its sites was called in this pass: choose others")
        if (mask := places_of(batch.x, self._masks)) is not None:
            activations = [self._there(h, mask) for h in activations]
        if batch.correction is not None:
            activations = [self._corrected(h, batch.correction) for h in activations]
        penalty = activation_l1_penalty(activations, self.weight, len(batch))
        self.record(module, "penalty", penalty)
        return penalty

    def _there(self, h: Tensor, mask: Tensor) -> Tensor:
        """An activation with 0 at the places that the mask leaves out, where it has places."""
        kept = places_kept(mask, h.shape, h.shape, self._channels_first)
        return h if kept is None else h.masked_fill(~kept, 0)

    def _corrected(self, h: Tensor, correction: Tensor) -> Tensor:
        if h.ndim == 0 or len(h) != len(correction):
            raise RecipeError(
                f"{self.state_key} counts each sample as often as makes up for its draws, and activations of the shape {tuple(h.shape)} "
                f"have no row for each of {len(correction)} samples: choose others by regularizer.activation_l1.sites, or leave "
                f"sampling=importance out"
            )
        return h * per_label(correction, h)
